//! Rules for each kind of value as keywords.

use prost_reflect::{DynamicMessage, Kind, Value as Field};
use serde_json::{Value, json};

use super::{
    IgnoreMode, flag, get, ignore_mode,
    keywords::{add, exact_values, less, to_json},
    list, strings,
};
use crate::grpc::schema::SchemaObject;

/// The keywords for `buf.validate.FieldRules` on a value of this kind.
pub(super) fn constraints(rules: &DynamicMessage, kind: &Kind) -> SchemaObject {
    let mut schema = SchemaObject::new();
    for (rule, value) in rules.fields() {
        let Some(value) = value.as_message() else { continue };
        match rule.name() {
            "string" => strings::strings(&mut schema, value),
            "bytes" => bytes(&mut schema, value),
            "bool" => exact_values(&mut schema, value),
            "enum" => enums(&mut schema, value, kind),
            "repeated" => repeated(&mut schema, value, kind),
            "map" => maps(&mut schema, value, kind),
            "float" | "double" | "int32" | "int64" | "uint32" | "uint64" | "sint32" | "sint64"
            | "fixed32" | "fixed64" | "sfixed32" | "sfixed64" => numbers(&mut schema, value),
            // JSON Schema has no keywords for rules on times, durations, masks and `Any`.
            _ => {}
        }
    }
    schema
}

fn numbers(schema: &mut SchemaObject, rules: &DynamicMessage) {
    exact_values(schema, rules);
    let bound = |names: [(&str, &'static str); 2]| {
        names.into_iter().find_map(|(rule, keyword)| Some((keyword, to_json(&get(rules, rule)?)?)))
    };
    let upper = bound([("lt", "exclusiveMaximum"), ("lte", "maximum")]);
    let lower = bound([("gt", "exclusiveMinimum"), ("gte", "minimum")]);
    match (lower, upper) {
        // A lower bound above the upper one means the values outside of the range.
        (Some((min, lower)), Some((max, upper))) if less(&upper, &lower) => {
            add(schema, "anyOf", json!([{ min: lower }, { max: upper }]));
        }
        (lower, upper) => {
            for (keyword, bound) in lower.into_iter().chain(upper) {
                add(schema, keyword, bound);
            }
        }
    }
}

fn enums(schema: &mut SchemaObject, rules: &DynamicMessage, kind: &Kind) {
    let Kind::Enum(descriptor) = kind else { return };
    let numbers = |rule| list(rules, rule).iter().filter_map(Field::as_i32).collect::<Vec<_>>();
    let (included, excluded) = (numbers("in"), numbers("not_in"));
    let only = get(rules, "const").as_ref().and_then(Field::as_i32);
    let allowed = |number: i32| {
        only.is_none_or(|only| only == number)
            && (included.is_empty() || included.contains(&number))
            && !excluded.contains(&number)
    };
    let values = descriptor.values().filter(|value| allowed(value.number()));
    let names: Vec<_> = values.map(|value| value.name().to_owned()).collect();
    // Rules that no value satisfies are invalid.
    if !names.is_empty() && names.len() < descriptor.values().len() {
        add(schema, "enum", json!(names));
    }
}

/// Lengths in bytes as lengths of base64, with or without padding.
fn bytes(schema: &mut SchemaObject, rules: &DynamicMessage) {
    for (rule, at_least, at_most) in
        [("min_len", true, false), ("max_len", false, true), ("len", true, true)]
    {
        let Some(length) = get(rules, rule).and_then(|value| value.as_u64()) else { continue };
        if at_least {
            add(schema, "minLength", json!(length.saturating_mul(4).div_ceil(3)));
        }
        if at_most {
            add(schema, "maxLength", json!(length.div_ceil(3).saturating_mul(4)));
        }
    }
}

fn repeated(schema: &mut SchemaObject, rules: &DynamicMessage, kind: &Kind) {
    sizes(schema, rules, [("min_items", "minItems"), ("max_items", "maxItems")]);
    if flag(rules, "unique") {
        add(schema, "uniqueItems", json!(true));
    }
    inner(schema, rules, "items", "items", kind);
}

fn maps(schema: &mut SchemaObject, rules: &DynamicMessage, entry: &Kind) {
    let Kind::Message(entry) = entry else { return };
    sizes(schema, rules, [("min_pairs", "minProperties"), ("max_pairs", "maxProperties")]);
    if !entry.is_map_entry() {
        return;
    }
    // Keys of other kinds are strings in JSON, to which rules for numbers do not apply.
    if entry.map_entry_key_field().kind() == Kind::String {
        inner(schema, rules, "keys", "propertyNames", &Kind::String);
    }
    inner(schema, rules, "values", "additionalProperties", &entry.map_entry_value_field().kind());
}

fn inner(
    schema: &mut SchemaObject,
    rules: &DynamicMessage,
    rule: &str,
    keyword: &str,
    kind: &Kind,
) {
    let rules = get(rules, rule);
    let Some(rules) = rules.as_ref().and_then(Field::as_message) else { return };
    let only = constraints(rules, kind);
    match ignore_mode(rules) {
        _ if only.is_empty() => {}
        IgnoreMode::Never => add(schema, keyword, Value::Object(only)),
        IgnoreMode::IfZero => {
            add(schema, keyword, json!({ "anyOf": [{ "enum": ["", 0, false] }, only] }));
        }
        IgnoreMode::Always => {}
    }
}

fn sizes(schema: &mut SchemaObject, rules: &DynamicMessage, names: [(&str, &str); 2]) {
    for (rule, keyword) in names {
        if let Some(size) = get(rules, rule).and_then(|value| value.as_u64()) {
            add(schema, keyword, json!(size));
        }
    }
}
