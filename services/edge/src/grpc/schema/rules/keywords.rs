//! Keywords of a schema.

use prost_reflect::{DynamicMessage, Value as Field};
use serde_json::{Number, Value, json};

use super::{get, list};
use crate::grpc::schema::{SchemaObject, into_object};

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

pub(super) fn less(one: &Value, other: &Value) -> bool {
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

pub(super) fn to_json(value: &Field) -> Option<Value> {
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
