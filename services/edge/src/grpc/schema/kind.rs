//! Scalars and enums, as protobuf's JSON mapping writes and reads them.

use prost_reflect::{EnumDescriptor, Kind};
use serde_json::{Number, Value, json};

use super::{Object, Purpose, into_object};

/// Standard base64, with or without padding.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}(==)?|[A-Za-z0-9+/]{3}=?)?$";

/// The schema of a value that is no message.
pub(super) fn schema(kind: &Kind, purpose: Purpose) -> Object {
    if let Some((minimum, maximum)) = integer_range(kind) {
        return into_object(integer(kind, purpose, &minimum, &maximum));
    }
    let schema = match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::String => json!({ "type": "string" }),
        Kind::Bytes if purpose == Purpose::Check => json!({ "type": "string", "pattern": BASE64 }),
        Kind::Bytes => json!({ "type": "string" }),
        // What is no number is written as a word. No model needs to send such a thing.
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
        // A service may know values that this contract does not; they are written as numbers.
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

/// The least and the greatest integer of a kind. None when it is no integer.
pub(crate) fn integer_range(kind: &Kind) -> Option<(Number, Number)> {
    let range = |(least, greatest): (i64, u64)| (Number::from(least), Number::from(greatest));
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

/// The ranges of types are much to read, and model APIs refuse those of 64 bits: they are checked, and not shown.
fn integer(kind: &Kind, purpose: Purpose, minimum: &Number, maximum: &Number) -> Value {
    match purpose {
        // Beyond 2^53 − 1 they are written as text.
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

/// The schema of a map's keys, which JSON writes as text, for the check. None when any text will do.
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

/// A regular expression for the decimal numbers 1 to `max`, which has many digits, without leading zeros.
fn up_to(max: u64) -> String {
    let digits = max.to_string();
    let mut choices = vec![format!("[1-9][0-9]{{0,{}}}", digits.len().saturating_sub(2))];
    // As many digits as `max`: the same up to one place, less there, and then anything.
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

/// What a text is not, when it does not match a pattern that clients do not see or would not want to.
pub(crate) fn in_words(pattern: &str) -> Option<&'static str> {
    match pattern {
        BASE64 => Some("is not base64"),
        // No pattern that a contract gives is that long and begins like this.
        key if key.starts_with("^(0|[1-9][0-9]{0,") => Some("is no number, or out of range"),
        _ => None,
    }
}

/// The names that may be sent: all but the one that means "not said", which is said by leaving the field out.
pub(crate) fn names(descriptor: &EnumDescriptor) -> Vec<String> {
    let said = |name: &String| !name.ends_with("_UNSPECIFIED");
    let names: Vec<_> = written_names(descriptor).into_iter().filter(said).collect();
    if names.is_empty() { written_names(descriptor) } else { names }
}

/// The names that may be written, aliases among them.
fn written_names(descriptor: &EnumDescriptor) -> Vec<String> {
    descriptor.values().map(|value| value.name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_key_is_a_number_in_range() {
        let check = |kind: &Kind, accepted: &[&str], refused: &[&str]| {
            let schema = json!({ "propertyNames": map_key(kind).unwrap() });
            let validator = jsonschema::validator_for(&schema).unwrap();
            for (keys, valid) in [(accepted, true), (refused, false)] {
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
