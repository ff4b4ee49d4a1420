//! Scalars and enums in protobuf's JSON mapping.

use prost_reflect::{EnumDescriptor, Kind};
use serde_json::{Number, Value, json};

use super::{Purpose, SchemaObject, into_object};

/// Standard base64, with or without padding.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}(==)?|[A-Za-z0-9+/]{3}=?)?$";

/// The schema of a scalar or an enum.
pub(super) fn schema(kind: &Kind, purpose: Purpose) -> SchemaObject {
    if let Some((minimum, maximum)) = integer_range(kind) {
        return into_object(integer(kind, purpose, &minimum, &maximum));
    }
    let schema = match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::String => json!({ "type": "string" }),
        Kind::Bytes if purpose == Purpose::Check => json!({ "type": "string", "pattern": BASE64 }),
        Kind::Bytes => json!({ "type": "string" }),
        // NaN and infinities are written as strings. Models do not need to send them.
        Kind::Float | Kind::Double if purpose == Purpose::Result => {
            json!({ "anyOf": [{ "type": "number" }, { "type": "string" }] })
        }
        Kind::Float if purpose == Purpose::Check => {
            json!({ "type": "number", "minimum": f32::MIN, "maximum": f32::MAX })
        }
        Kind::Float | Kind::Double => json!({ "type": "number" }),
        Kind::Enum(descriptor) if descriptor.full_name() == "google.protobuf.NullValue" => {
            json!({ "type": "null" })
        }
        // Values that this contract does not know are written as numbers.
        Kind::Enum(descriptor) if purpose == Purpose::Result => json!({
            "anyOf": [
                { "type": "string", "enum": written_names(descriptor) },
                { "type": "integer" },
            ]
        }),
        Kind::Enum(descriptor) => json!({ "type": "string", "enum": names(descriptor) }),
        _ => json!({}),
    };
    into_object(schema)
}

/// The minimum and maximum of an integer kind.
pub(crate) fn integer_range(kind: &Kind) -> Option<(Number, Number)> {
    let range = |(min, max): (i64, u64)| (Number::from(min), Number::from(max));
    Some(range(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            (i32::MIN.into(), i32::MAX.unsigned_abs().into())
        }
        Kind::Uint32 | Kind::Fixed32 => (0, u32::MAX.into()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (i64::MIN, i64::MAX.unsigned_abs()),
        Kind::Uint64 | Kind::Fixed64 => (0, u64::MAX),
        _ => return None,
    }))
}

/// The range of a type is checked but not shown: it is long, and model APIs reject 64-bit bounds.
fn integer(kind: &Kind, purpose: Purpose, minimum: &Number, maximum: &Number) -> Value {
    match purpose {
        // Values beyond 2^53 − 1 are written as strings.
        Purpose::Result if is_64_bit(kind) => {
            json!({ "anyOf": [{ "type": "integer" }, { "type": "string" }] })
        }
        Purpose::Check => json!({ "type": "integer", "minimum": minimum, "maximum": maximum }),
        Purpose::Arguments if minimum.as_u64() == Some(0) => {
            json!({ "type": "integer", "minimum": 0 })
        }
        Purpose::Arguments | Purpose::Result => json!({ "type": "integer" }),
    }
}

fn is_64_bit(kind: &Kind) -> bool {
    matches!(kind, Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64)
}

/// The schema of a map's keys, which are strings in JSON. `None` where any string is valid.
pub(super) fn map_key(kind: &Kind) -> Option<Value> {
    let pattern = match kind {
        Kind::Bool => return Some(json!({ "enum": ["true", "false"] })),
        Kind::String => return None,
        Kind::Uint32 | Kind::Fixed32 => format!("^(0|{})$", up_to(u32::MAX.into())),
        Kind::Uint64 | Kind::Fixed64 => format!("^(0|{})$", up_to(u64::MAX)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => signed(i32::MAX.unsigned_abs().into()),
        _ => signed(i64::MAX.unsigned_abs()),
    };
    Some(json!({ "pattern": pattern }))
}

fn signed(max: u64) -> String {
    format!("^(0|{}|-({}))$", up_to(max), up_to(max + 1))
}

/// A regular expression for the decimal numbers 1 to `max` without leading zeros.
fn up_to(max: u64) -> String {
    let digits = max.to_string();
    let mut choices = vec![format!("[1-9][0-9]{{0,{}}}", digits.len().saturating_sub(2))];
    // With as many digits as `max`: equal up to one place, a smaller digit there, then any digits.
    for (place, digit) in digits.bytes().enumerate() {
        let lowest = if place == 0 { b'1' } else { b'0' };
        if digit > lowest {
            let (lowest, highest) = (char::from(lowest), char::from(digit - 1));
            let rest = digits.len() - place - 1;
            choices.push(format!("{}[{lowest}-{highest}][0-9]{{{rest}}}", &digits[..place]));
        }
    }
    choices.push(digits);
    choices.join("|")
}

/// Describes a mismatch with a pattern that is hidden from clients or hard to read.
pub(crate) fn describe_mismatch(pattern: &str) -> Option<&'static str> {
    match pattern {
        BASE64 => Some("is not base64"),
        // Patterns of contracts do not begin like this.
        key if key.starts_with("^(0|[1-9][0-9]{0,") => Some("is not a number or is out of range"),
        _ => None,
    }
}

/// The names that arguments may have: all but `…_UNSPECIFIED`, for which the field is omitted.
pub(crate) fn names(descriptor: &EnumDescriptor) -> Vec<String> {
    let is_specified = |name: &String| !name.ends_with("_UNSPECIFIED");
    let names: Vec<_> = written_names(descriptor).into_iter().filter(is_specified).collect();
    if names.is_empty() { written_names(descriptor) } else { names }
}

/// The names that results may have, including aliases.
fn written_names(descriptor: &EnumDescriptor) -> Vec<String> {
    descriptor.values().map(|value| value.name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_key_is_a_number_in_range() {
        let check = |kind: &Kind, accepted: &[&str], rejected: &[&str]| {
            let schema = json!({ "propertyNames": map_key(kind).unwrap() });
            let validator = jsonschema::validator_for(&schema).unwrap();
            for (keys, valid) in [(accepted, true), (rejected, false)] {
                for key in keys {
                    assert_eq!(validator.is_valid(&json!({ *key: 1 })), valid, "{kind:?} {key}");
                }
            }
        };
        let never = ["", "+1", "01", "-0", "-01", "1.0", " 1", "99999999999999999999", "a"];
        check(&Kind::Int32, &["0", "-1", "9", "10", "2147483647", "-2147483648"], &["2147483648"]);
        check(
            &Kind::Int32,
            &["1999999999", "2099999999"],
            &["-2147483649", "3000000000", "2147483650"],
        );
        check(
            &Kind::Int64,
            &["9223372036854775807", "-9223372036854775808"],
            &["9223372036854775808"],
        );
        check(&Kind::Uint32, &["0", "4294967295", "4294967289"], &["-1", "4294967296"]);
        check(&Kind::Uint64, &["18446744073709551615"], &["18446744073709551616", "-1"]);
        check(&Kind::Bool, &["true", "false"], &["True", "1"]);
        for kind in [Kind::Int32, Kind::Int64, Kind::Uint32, Kind::Uint64, Kind::Bool] {
            check(&kind, &[], &never);
        }
    }
}
