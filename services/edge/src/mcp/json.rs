//! Converts `google.protobuf.Struct` to JSON and back. Integers stay integers: MCP's schemas
//! distinguish 3 from 3.0.

use prost_types::{ListValue, Struct, Value as Field, value::Kind};
use serde_json::{Map, Number, Value};

/// The largest integer up to which a double represents every integer exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Converts a struct to a JSON object.
pub(super) fn from_struct(fields: &Struct) -> Value {
    Value::Object(
        fields.fields.iter().map(|(name, field)| (name.clone(), from_field(field))).collect(),
    )
}

/// Converts a value to JSON.
pub(super) fn from_field(field: &Field) -> Value {
    match &field.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::NumberValue(value)) => number(*value),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::StructValue(fields)) => from_struct(fields),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(from_field).collect()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is an integer within the exact range")]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Converts a JSON object to a struct.
pub(super) fn to_struct(object: &Map<String, Value>) -> Struct {
    Struct { fields: object.iter().map(|(name, value)| (name.clone(), to_field(value))).collect() }
}

fn to_field(value: &Value) -> Field {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(list) => {
            Kind::ListValue(ListValue { values: list.iter().map(to_field).collect() })
        }
        Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    Field { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_stay_integers_through_a_struct() {
        let inner = json!({ "e": 9_007_199_254_740_992_i64 });
        let object = json!({ "a": 3, "b": -1.5, "c": [true, null, "x"], "d": inner });
        let fields = to_struct(object.as_object().unwrap());
        assert_eq!(from_struct(&fields).to_string(), object.to_string());
    }

    #[test]
    fn numbers_that_json_cannot_represent_become_null() {
        assert_eq!(number(f64::NAN), Value::Null);
        assert_eq!(number(f64::INFINITY), Value::Null);
    }
}
