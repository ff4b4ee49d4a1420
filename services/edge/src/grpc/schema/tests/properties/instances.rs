//! Generates JSON that matches a schema, and near misses.

use std::{cell::RefCell, collections::HashMap};

use serde_json::{Map, Value, json};

use super::generate::Tape;

const DEPTH_MAX: usize = 4;
/// Groups of fields of which usually at most one is set. More must be rejected.
const CHOICES: [&[&str]; 3] = [
    &["chosen_string", "chosen_tree", "chosen_value", "chosen_null", "chosen_color"],
    &["a", "b"],
    &["x", "y"],
];

/// JSON that satisfies each keyword of the schema by itself.
pub(super) fn instance(
    schema: &Value,
    root: &Map<String, Value>,
    tape: &mut Tape,
    depth: usize,
) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.trim_start_matches("#/$defs/");
        return instance(&root["$defs"][name], root, tape, depth + 1);
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, root, tape, depth),
        Some("array") => {
            let min_items =
                usize::try_from(schema["minItems"].as_u64().unwrap_or_default()).unwrap();
            let more = if depth > DEPTH_MAX { 0 } else { tape.below(3) };
            (0..min_items + more)
                .map(|_| instance(&schema["items"], root, tape, depth + 1))
                .collect()
        }
        Some("boolean") => json!(schema["const"].as_bool().unwrap_or(tape.below(2) == 1)),
        Some("null") => Value::Null,
        Some("string") => text(schema, tape),
        Some("integer" | "number") => number(schema, tape),
        _ => unusual(tape),
    }
}

fn object(schema: &Value, root: &Map<String, Value>, tape: &mut Tape, depth: usize) -> Value {
    let mut object = Map::new();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let is_skipped = depth > DEPTH_MAX || tape.below(3) == 0;
        if !is_skipped || required.contains(&json!(name)) {
            object.insert(name.clone(), instance(property, root, tape, depth + 1));
        }
    }
    let values = &schema["additionalProperties"];
    if values.is_object() && depth <= DEPTH_MAX {
        let names = schema.get("propertyNames").cloned().unwrap_or(json!({}));
        for _ in 0..tape.below(3) {
            let Value::String(key) = text(&names, tape) else { continue };
            object.insert(key, instance(values, root, tape, depth + 1));
        }
    }
    if tape.below(50) != 1 {
        for choice in CHOICES {
            let mut has_choice = false;
            object.retain(|name, _| {
                !choice.contains(&name.as_str()) || !std::mem::replace(&mut has_choice, true)
            });
        }
    }
    Value::Object(object)
}

#[rustfmt::skip]
const TEXTS: [&str; 42] = [
    "", "a", "ab", "abc", "a.b0", "one", "two", "aä\u{10ffff}", "0", "-1", "7", "12", "+1", "007",
    "2147483647", "-2147483648", "4294967295", "18446744073709551615", "99999999999999999999",
    "true", "false", "AAAA", "AA==", "AA", "AAA=", "AAAAAA==", "-_-_", "1.5s", "-0.000000001s",
    "99999999999s", "foo.barBaz,q", "foo_bar", "2024-02-29T12:00:00Z",
    "2016-12-31T23:59:60.5+00:00", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z",
    "2023-02-29T12:00:00Z", "2024-01-01t00:00:00z", "a@example.com", "example.com",
    "8f14e45f-ceea-467f-a83d-1c2d1f2a3b4c", "COLOR_RED",
];

thread_local! {
    static VALID_VALUES: RefCell<HashMap<String, Vec<Value>>> = RefCell::default();
}

/// A valid value from those in the schema and the candidates, if there is one.
fn valid_value(schema: &Value, candidates: impl Iterator<Item = Value>, tape: &mut Tape) -> Value {
    let valid = VALID_VALUES.with_borrow_mut(|known| {
        let find = || {
            let validator =
                jsonschema::options().should_validate_formats(true).build(schema).unwrap();
            let named = schema["enum"].as_array().cloned().unwrap_or_default();
            let bounds = ["minimum", "maximum", "const"].map(|keyword| schema[keyword].clone());
            let values = named.into_iter().chain(bounds).chain(candidates);
            values.filter(|value| validator.is_valid(value)).collect::<Vec<_>>()
        };
        known.entry(schema.to_string()).or_insert_with(find).clone()
    });
    if valid.is_empty() { json!("no valid value") } else { tape.pick(&valid) }
}

fn text(schema: &Value, tape: &mut Tape) -> Value {
    valid_value(schema, TEXTS.into_iter().map(Value::from), tape)
}

fn number(schema: &Value, tape: &mut Tape) -> Value {
    let numbers = [
        json!(7),
        json!(1),
        json!(2.0),
        json!(0),
        json!(0.25),
        json!(11),
        json!(1e300),
        json!(-0.0),
    ];
    valid_value(schema, numbers.into_iter(), tape)
}

/// Changes one value.
pub(super) fn mutate(json: &mut Value, tape: &mut Tape) {
    let size = json.as_object().map_or(0, Map::len) + json.as_array().map_or(0, Vec::len);
    if size > 0 && tape.below(3) != 0 {
        let at = tape.below(size);
        match json {
            Value::Object(object) => {
                object.values_mut().nth(at).into_iter().for_each(|value| mutate(value, tape));
            }
            Value::Array(array) => mutate(&mut array[at], tape),
            _ => {}
        }
        return;
    }
    match json {
        Value::Object(object) if tape.below(2) == 0 => {
            let names = ["other", "unknown", "chosenString", "1", "b", "chosen_color", "@type"];
            object.insert(tape.pick(&names).to_owned(), unusual(tape));
        }
        json => *json = unusual(tape),
    }
}

/// JSON that few fields accept, but that converters tend to accept.
fn unusual(tape: &mut Tape) -> Value {
    let texts = TEXTS.into_iter().map(Value::from);
    #[rustfmt::skip]
    let others = [
        Value::Null, json!(true), json!(1.5), json!(-0.0), json!(1e300), json!(-1), json!(3.0),
        json!(1e39), json!(u64::MAX), json!(i64::MIN), json!(18_446_744_073_709_551_616.0),
        json!(9_223_372_036_854_775_808.0), json!(4_294_967_296_u64), json!([]), json!({}),
        json!([null]), json!({ "a": [1, { "b": null }] }),
    ];
    tape.pick(&others.into_iter().chain(texts).collect::<Vec<_>>())
}
