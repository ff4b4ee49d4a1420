//! The well-known types, as protobuf's JSON mapping writes and reads them.

use prost_reflect::Kind;
use serde_json::json;

use super::{Object, Purpose, into_object, kind};

/// A time of the years 1 to 9999, to the nanosecond. `format` alone would also take small letters.
const TIMESTAMP: &str = "^([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}\
    T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";
/// Protobuf's durations reach 315576000000 seconds. What is sent may have one digit less.
const SENT_DURATION: &str = r"^-?[0-9]{1,11}(\.[0-9]{1,9})?s$";

/// The schema of a well-known type that is no plain object in JSON.
pub(super) fn schema(full_name: &str, purpose: Purpose) -> Option<Object> {
    if let Some(kind) = wrapped(full_name) {
        return Some(wrapper(&kind, purpose));
    }
    let name = full_name.strip_prefix("google.protobuf.")?;
    Some(into_object(match (name, purpose) {
        ("Timestamp", Purpose::Check) => {
            json!({ "type": "string", "format": "date-time", "pattern": TIMESTAMP })
        }
        ("Timestamp", Purpose::Arguments) => json!({ "type": "string", "format": "date-time" }),
        ("Duration", Purpose::Arguments | Purpose::Check) => {
            json!({ "type": "string", "pattern": SENT_DURATION })
        }
        ("Timestamp" | "Duration" | "FieldMask", Purpose::Result) => json!({ "type": "string" }),
        // Paths in lowerCamelCase, with commas between them.
        ("FieldMask", _) => json!({ "type": "string", "pattern": "^[^_]*$" }),
        ("Empty", _) => {
            json!({ "type": "object", "properties": {}, "additionalProperties": false })
        }
        ("Struct", _) => json!({ "type": "object" }),
        ("ListValue", _) => json!({ "type": "array" }),
        ("Value", _) => json!({}),
        // No name of a property that model APIs take is `@type`.
        ("Any", Purpose::Check) => {
            json!({ "type": "object", "properties": { "@type": { "type": "string" } }, "required": ["@type"] })
        }
        ("Any", _) => json!({ "type": "object" }),
        _ => return None,
    }))
}

/// What a text is not, when it does not match the pattern of a well-known type.
pub(crate) fn in_words(pattern: &str) -> Option<&'static str> {
    match pattern {
        TIMESTAMP => Some("is no time such as 2024-02-29T12:00:00Z"),
        SENT_DURATION => Some("is no duration such as 1.5s"),
        _ => None,
    }
}

/// What a wrapper wraps.
pub(crate) fn wrapped(full_name: &str) -> Option<Kind> {
    Some(match full_name.strip_prefix("google.protobuf.")? {
        "BoolValue" => Kind::Bool,
        "StringValue" => Kind::String,
        "BytesValue" => Kind::Bytes,
        "FloatValue" => Kind::Float,
        "DoubleValue" => Kind::Double,
        "Int32Value" => Kind::Int32,
        "UInt32Value" => Kind::Uint32,
        "Int64Value" => Kind::Int64,
        "UInt64Value" => Kind::Uint64,
        _ => return None,
    })
}

/// A wrapper is what it wraps, and is left out when it is not set. Only where it wraps what is no number, null
/// is written.
fn wrapper(kind: &Kind, purpose: Purpose) -> Object {
    match kind {
        Kind::Float | Kind::Double if purpose == Purpose::Result => {
            into_object(json!({ "anyOf": [{ "type": "number" }, { "type": "null" }] }))
        }
        kind => kind::schema(kind, purpose),
    }
}
