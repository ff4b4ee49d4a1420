//! Rules for each kind of value as keywords.

use prost_reflect::{DynamicMessage, Kind, Value as Field};
use serde_json::{Number, Value, json};

use super::{IgnoreMode, flag, get, ignore_mode, list, strings};
use crate::grpc::schema::{SchemaObject, into_object};

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

/// Adds keywords to a schema. Where both have a keyword, both constraints apply.
pub(super) fn merge(schema: &mut SchemaObject, more: SchemaObject) {
    for (keyword, value) in more {
        let Some(present) = schema.get_mut(&keyword) else {
            schema.insert(keyword, value);
            continue;
        };
        match (keyword.as_str(), present, value) {
            (
                "items" | "propertyNames" | "additionalProperties",
                Value::Object(present),
                Value::Object(more),
            ) => {
                merge(present, more);
            }
            ("enum", Value::Array(present), Value::Array(more)) => {
                // Rules that no value satisfies are invalid.
                if present.iter().any(|value| more.contains(value)) {
                    present.retain(|value| more.contains(value));
                }
            }
            ("minimum" | "minLength" | "minItems" | "minProperties", present, more) => {
                if less(present, &more) {
                    *present = more;
                }
            }
            ("maximum" | "maxLength" | "maxItems" | "maxProperties", present, more) => {
                if less(&more, present) {
                    *present = more;
                }
            }
            (_, present, more) if *present == more => {}
            (_, _, more) => {
                let all = schema.entry("allOf").or_insert_with(|| json!([]));
                if let Value::Array(all) = all {
                    all.push(json!({ keyword: more }));
                }
            }
        }
    }
}

fn less(one: &Value, other: &Value) -> bool {
    let integer = |value: &Value| value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one < other,
        _ => one.as_f64() < other.as_f64(),
    }
}

pub(super) fn add(schema: &mut SchemaObject, keyword: &str, value: Value) {
    merge(schema, into_object(json!({ keyword: value })));
}

/// `const`, `in` and `not_in`.
pub(super) fn exact_values(schema: &mut SchemaObject, rules: &DynamicMessage) {
    if let Some(value) = get(rules, "const").as_ref().and_then(to_json) {
        add(schema, "const", value);
    }
    for (rule, is_excluded) in [("in", false), ("not_in", true)] {
        let values: Vec<_> = list(rules, rule).iter().filter_map(to_json).collect();
        match (values.is_empty(), is_excluded) {
            (true, _) => {}
            (false, false) => add(schema, "enum", json!(values)),
            (false, true) => add(schema, "not", json!({ "enum": values })),
        }
    }
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

fn to_json(value: &Field) -> Option<Value> {
    Some(match value {
        Field::Bool(value) => json!(value),
        Field::I32(value) => json!(value),
        Field::I64(value) => json!(value),
        Field::U32(value) => json!(value),
        Field::U64(value) => json!(value),
        // As in the contract: 0.1, not 0.10000000149011612.
        Field::F32(value) => Value::Number(Number::from_f64(value.to_string().parse().ok()?)?),
        Field::F64(value) => Value::Number(Number::from_f64(*value)?),
        Field::String(value) => json!(value),
        _ => return None,
    })
}
