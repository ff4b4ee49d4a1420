//! Property tests for any message and any JSON.
//!
//! The exceptions are protobuf's own: NaN equals nothing, an `Any` needs a type of the contract,
//! `Value` nests about thirty levels, and a time zone can move a time out of the years 1 to 9999.

use std::{collections::HashMap, sync::LazyLock};

use drawbridge_contract::dynamic::{from_json, to_json};
use jsonschema::Validator;
use proptest::{collection::vec, prelude::*};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _};
use serde_json::Value;

use self::{
    generate::Tape,
    instances::{instance, mutate},
};
use crate::{
    catalog::{arguments::normalize::normalize, schema_text::compile, testdata},
    grpc::{
        comments::Comments,
        schema::{Detail, Purpose, SchemaObject, write},
    },
};

pub(crate) mod generate;
mod instances;

fn schema(message: &str, purpose: Purpose) -> SchemaObject {
    // In full detail, regardless of its length.
    write(&testdata::message(message), purpose, Detail::ALL, &mut Comments::default()).unwrap()
}

fn validators(purpose: Purpose) -> HashMap<&'static str, Validator> {
    let messages = ["Everything", "Envelope", "Ruled", "Choices"];
    messages.into_iter().map(|name| (name, compile(&schema(name, purpose)).unwrap())).collect()
}

static RESULTS: LazyLock<HashMap<&str, Validator>> = LazyLock::new(|| validators(Purpose::Result));
static CHECKS: LazyLock<HashMap<&str, Validator>> = LazyLock::new(|| validators(Purpose::Check));

/// A message as its receiver decodes it: without presence, a set zero equals an unset field.
fn received(message: &DynamicMessage) -> DynamicMessage {
    DynamicMessage::decode(message.descriptor(), message.encode_to_vec().as_slice()).unwrap()
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) }
}

/// The source of all choices. A shorter tape gives a simpler case.
fn tape() -> impl Strategy<Value = Tape> {
    vec(any::<u64>(), 0..300).prop_map(Tape::new)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_message_survives_json(
        mut tape in tape(),
        name in prop::sample::select(vec!["Everything", "Envelope"]),
    ) {
        tape.only_numbers = true;
        let message = generate::message(&testdata::message(name), &mut tape, 0);
        let json = to_json(&message).unwrap();
        let read = from_json(testdata::message(name), &json).unwrap();
        prop_assert!(received(&read) == received(&message), "{}", json);
        // Serialized, as on the wire.
        let json: Value = serde_json::from_str(&json.to_string()).unwrap();
        let read = from_json(testdata::message(name), &json).unwrap();
        prop_assert!(received(&read) == received(&message), "{}", json);
    }

    #[test]
    fn a_result_matches_its_schema(
        mut tape in tape(),
        name in prop::sample::select(vec!["Everything", "Envelope", "Ruled", "Choices"]),
    ) {
        let message = generate::message(&testdata::message(name), &mut tape, 0);
        let json = to_json(&message).unwrap();
        let validation = RESULTS[name].validate(&json).map_err(|error| error.to_string());
        prop_assert_eq!(validation, Ok(()), "{}", json);
    }

    #[test]
    fn arguments_that_the_schema_accepts_become_a_message(
        mut tape in tape(),
        changed in any::<bool>(),
        name in prop::sample::select(vec!["Everything", "Ruled", "Choices"]),
    ) {
        let schema = &CHECK_SCHEMAS[name];
        let mut json = instance(&Value::Object(schema.clone()), schema, &mut tape, 0);
        if changed {
            mutate(&mut json, &mut tape);
        }
        if CHECKS[name].is_valid(&json) {
            let message = from_json(testdata::message(name), &json);
            let message = message.map_err(|error| TestCaseError::fail(format!("{error}: {json}")))?;
            // Decisions and calls use the parsed message.
            let written = to_json(&message).unwrap();
            let read = from_json(testdata::message(name), &written).unwrap();
            prop_assert!(received(&read) == received(&message), "{}", json);
            prop_assert!(RESULTS[name].is_valid(&written));
            // The schema for checks is at least as strict as the one for clients.
            prop_assert!(ARGUMENTS[name].is_valid(&json));
        }
    }
}

static CHECK_SCHEMAS: LazyLock<HashMap<&str, SchemaObject>> = LazyLock::new(|| {
    ["Everything", "Ruled", "Choices"].map(|name| (name, schema(name, Purpose::Check))).into()
});
static ARGUMENTS: LazyLock<HashMap<&str, Validator>> =
    LazyLock::new(|| validators(Purpose::Arguments));

/// Writes some numbers as text, as models may do.
fn retype(value: &mut Value, tape: &mut Tape) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|value| retype(value, tape)),
        Value::Array(items) => items.iter_mut().for_each(|value| retype(value, tape)),
        Value::Number(number) if tape.below(2) == 0 => *value = Value::String(number.to_string()),
        _ => {}
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn numbers_as_text_give_the_same_message(mut tape in tape()) {
        tape.only_numbers = true;
        let descriptor = testdata::message("Numbers");
        let message = generate::message(&descriptor, &mut tape, 0);
        let json = to_json(&message).unwrap();
        let mut retyped = json.clone();
        retype(&mut retyped, &mut tape);
        let schema = schema("Numbers", Purpose::Check);
        let arguments = normalize(&descriptor, &retyped);
        prop_assert!(compile(&schema).unwrap().is_valid(&arguments), "{} {}", retyped, arguments);
        let read = from_json(descriptor, &arguments).unwrap();
        prop_assert!(received(&read) == received(&message), "{}", retyped);
    }
}

#[test]
fn most_generated_arguments_are_accepted() {
    for name in ["Everything", "Ruled", "Choices"] {
        let accepted = (0..200_u64).filter(|seed| {
            let numbers =
                (0..300).map(|at| seed.wrapping_add(at).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let numbers = numbers.map(|number: u64| number ^ (number >> 29)).collect();
            let schema = &CHECK_SCHEMAS[name];
            let json = instance(&Value::Object(schema.clone()), schema, &mut Tape::new(numbers), 0);
            CHECKS[name].is_valid(&json)
        });
        let accepted = accepted.count();
        assert!(
            accepted > 40,
            "of 200 {name}, {accepted} are accepted: the property above tests nothing"
        );
    }
}
