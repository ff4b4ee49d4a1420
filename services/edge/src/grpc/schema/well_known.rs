//! The well-known types in protobuf's JSON mapping.

use prost_reflect::Kind;
use serde_json::json;

use super::{Purpose, SchemaObject, into_object, kind};

/// A time of the years 1 to 9999 with nanoseconds. `format` alone would accept lower-case letters.
const TIMESTAMP: &str = "^([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}\
    T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";
/// Protobuf's durations reach 315576000000 seconds. Arguments are limited to one digit less.
const DURATION: &str = r"^-?[0-9]{1,11}(\.[0-9]{1,9})?s$";

/// The schema of a well-known type whose JSON form is not an object of its fields.
pub(super) fn schema(full_name: &str, purpose: Purpose) -> Option<SchemaObject> {
    if let Some(kind) = wrapped_kind(full_name) {
        return Some(wrapper(&kind, purpose));
    }
    let name = full_name.strip_prefix("google.protobuf.")?;
    Some(into_object(match (name, purpose) {
        ("Timestamp", Purpose::Check) => {
            json!({ "type": "string", "format": "date-time", "pattern": TIMESTAMP })
        }
        ("Timestamp", Purpose::Arguments) => json!({ "type": "string", "format": "date-time" }),
        ("Duration", Purpose::Arguments | Purpose::Check) => {
            json!({ "type": "string", "pattern": DURATION })
        }
        ("Timestamp" | "Duration" | "FieldMask", Purpose::Result) => json!({ "type": "string" }),
        // Comma-separated paths in lowerCamelCase.
        ("FieldMask", _) => json!({ "type": "string", "pattern": "^[^_]*$" }),
        ("Empty", _) => {
            json!({ "type": "object", "properties": {}, "additionalProperties": false })
        }
        ("Struct", _) => json!({ "type": "object" }),
        ("ListValue", _) => json!({ "type": "array" }),
        ("Value", _) => json!({}),
        // Model APIs reject the property name `@type`.
        ("Any", Purpose::Check) => {
            json!({
                "type": "object",
                "properties": { "@type": { "type": "string" } },
                "required": ["@type"]
            })
        }
        ("Any", _) => json!({ "type": "object" }),
        _ => return None,
    }))
}

/// Describes a mismatch with the pattern of a well-known type.
pub(crate) fn describe_mismatch(pattern: &str) -> Option<&'static str> {
    match pattern {
        TIMESTAMP => Some("is not a timestamp (expected e.g. 2024-02-29T12:00:00Z)"),
        DURATION => Some("is not a duration (expected e.g. 1.5s)"),
        _ => None,
    }
}

/// The kind that a wrapper type wraps.
pub(crate) fn wrapped_kind(full_name: &str) -> Option<Kind> {
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

/// A wrapper has the form of what it wraps, and is omitted if unset. A wrapped NaN or infinity is
/// written as null.
fn wrapper(kind: &Kind, purpose: Purpose) -> SchemaObject {
    match kind {
        Kind::Float | Kind::Double if purpose == Purpose::Result => {
            into_object(json!({ "anyOf": [{ "type": "number" }, { "type": "null" }] }))
        }
        kind => kind::schema(kind, purpose),
    }
}
