//! Normalizes arguments as models write them to the types of the contract. This is the only place
//! that does so; it runs before checks, transformations, decisions and caching.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Number, Value};

use drawbridge_contract::dynamic::EXACT_INTEGER_MAX;

use crate::grpc::schema::{enum_names, wrapped_kind};

const VALUE: &str = "google.protobuf.Value";
const NULL: &str = "google.protobuf.NullValue";

/// The arguments with each value in its field's type, where the conversion is unambiguous:
///
/// - `null` is an absent field;
/// - a number may be given as text, and a text as a number;
/// - `true` and `false` may be given as text, and enum names in any case.
///
/// An ambiguous value stays unchanged, and the schema check rejects it.
pub(crate) fn normalize(message: &MessageDescriptor, arguments: &Value) -> Value {
    let mut normalized = arguments.clone();
    if let Value::Object(object) = &mut normalized {
        fields(message, object);
    }
    normalized
}

fn fields(message: &MessageDescriptor, object: &mut Map<String, Value>) {
    object.retain(|name, value| {
        let Some(field) = message.get_field_by_name(name) else { return true };
        if value.is_null() && !may_be_null(&field) {
            return false;
        }
        match (field.kind(), value) {
            (Kind::Message(entry), Value::Object(entries)) if field.is_map() => {
                let kind = entry.map_entry_value_field().kind();
                entries.values_mut().for_each(|value| value_of(&kind, value));
            }
            (kind, Value::Array(items)) if field.is_list() => {
                items.iter_mut().for_each(|item| value_of(&kind, item));
            }
            (kind, value) if !field.is_list() && !field.is_map() => value_of(&kind, value),
            _ => {}
        }
        true
    });
}

fn may_be_null(field: &FieldDescriptor) -> bool {
    !field.is_list()
        && match field.kind() {
            Kind::Message(message) => message.full_name() == VALUE,
            Kind::Enum(descriptor) => descriptor.full_name() == NULL,
            _ => false,
        }
}

fn value_of(kind: &Kind, value: &mut Value) {
    match kind {
        Kind::Message(message) => match (wrapped_kind(message.full_name()), value) {
            (Some(kind), value) => value_of(&kind, value),
            // The JSON form of other well-known types has no fields.
            (None, Value::Object(object))
                if !message.full_name().starts_with("google.protobuf.") =>
            {
                fields(message, object);
            }
            (None, _) => {}
        },
        kind => {
            if let Some(converted) = scalar(kind, value) {
                *value = converted;
            }
        }
    }
}

/// A value converted to the field's type. `None`: it has the type already, or is ambiguous.
fn scalar(kind: &Kind, value: &Value) -> Option<Value> {
    match (kind, value) {
        (Kind::Bool, Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        (Kind::String, Value::Number(number)) => text(number).map(Value::String),
        (Kind::Enum(descriptor), Value::String(text)) => {
            enum_name(descriptor, text).map(Value::String)
        }
        (Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Bool | Kind::Message(_), _) => None,
        (Kind::Float | Kind::Double, Value::String(text)) => number(text).map(Value::Number),
        (_, Value::String(text)) => integer(text).map(Value::Number),
        _ => None,
    }
}

/// A text that is exactly an integer. One with a fraction or an exponent is parsed as a double,
/// which is exact only up to 2^53.
fn integer(text: &str) -> Option<Number> {
    number(text).filter(|number| {
        let is_whole = number.is_i64() || number.is_u64();
        #[expect(clippy::cast_precision_loss, reason = "the maximum is exact")]
        let is_exact =
            || number.as_f64().is_some_and(|value| value.abs() <= EXACT_INTEGER_MAX as f64);
        is_whole || is_exact()
    })
}

/// A text that is a JSON number without white space.
fn number(text: &str) -> Option<Number> {
    let is_numeric =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    text.bytes().all(is_numeric).then(|| serde_json::from_str(text).ok()).flatten()
}

/// A number as decimal text: integers without a fraction, and no exponents.
fn text(number: &Number) -> Option<String> {
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string());
    }
    let value = number.as_f64()?;
    #[expect(clippy::cast_precision_loss, reason = "the maximum is exact")]
    let is_plain = value.abs() <= EXACT_INTEGER_MAX as f64 && (value == 0.0 || value.abs() >= 1e-6);
    is_plain.then(|| value.to_string())
}

/// The one enum name that equals the text regardless of case.
fn enum_name(descriptor: &EnumDescriptor, text: &str) -> Option<String> {
    let mut known =
        enum_names(descriptor).into_iter().filter(|name| name.eq_ignore_ascii_case(text));
    match (known.next(), known.next()) {
        (Some(name), None) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::testdata;

    #[track_caller]
    fn check(arguments: &Value, expected: &Value) {
        let normalized = normalize(&testdata::message("Everything"), arguments);
        assert_eq!(normalized, *expected);
        assert_eq!(normalize(&testdata::message("Everything"), &normalized), *expected, "again");
    }

    #[test]
    fn null_is_an_absent_field() {
        check(
            &json!({
                "string": null, "optional_int32": null, "strings": null, "by_int32": null,
                "tree": null, "string_value": null, "timestamp": null,
                "nested": { "renamed": null },
            }),
            &json!({ "nested": {} }),
        );
        // Where null is a valid value it stays; in other lists the schema check rejects it.
        let unchanged = json!({
            "value": null, "null_value": null, "values": [null], "strings": [null],
            "unknown": null, "struct": { "a": null }, "by_sfixed64": { "1": null },
        });
        check(&unchanged, &unchanged);
    }

    /// It used to become the nearest double.
    #[test]
    fn an_integer_beyond_a_doubles_precision_is_not_accepted_with_a_fraction_or_an_exponent() {
        let unchanged = json!({ "int64": "9007199254740993.0", "uint64": "9.007199254740993e15" });
        check(&unchanged, &unchanged);
        check(&json!({ "int64": "2.0", "int32": "1e3" }), &json!({ "int64": 2.0, "int32": 1e3 }));
    }

    #[test]
    fn a_number_may_be_text_and_a_text_a_number() {
        check(
            &json!({
                "int32": "5", "int64": "-9223372036854775808", "uint64": "18446744073709551615",
                "double": "1e3", "float": "0.1", "int64s": ["1", 2], "by_sint64": { "1": "2" },
                "int64_value": "7", "string": 42, "strings": [1, 1.5, -3.0],
                "string_value": 1250.5, "trees": [{ "label": 3 }],
            }),
            &json!({
                "int32": 5, "int64": i64::MIN, "uint64": u64::MAX, "double": 1e3, "float": 0.1,
                "int64s": [1, 2], "by_sint64": { "1": 2 }, "int64_value": 7, "string": "42",
                "strings": ["1", "1.5", "-3"], "string_value": "1250.5",
                "trees": [{ "label": "3" }],
            }),
        );
    }

    #[test]
    fn a_bool_may_be_text_and_an_enum_name_in_any_case() {
        check(
            &json!({
                "bool": "true", "bools": ["False", true], "bool_value": "TRUE",
                "color": "color_red", "colors": ["Color_Blue", "COLOR_RED"],
            }),
            &json!({ "bool": true, "bools": [false, true], "bool_value": true, "color": "COLOR_RED",
                "colors": ["COLOR_BLUE", "COLOR_RED"] }),
        );
    }

    #[test]
    fn an_ambiguous_value_stays_unchanged() {
        for ambiguous in [
            json!({ "int32": "+5" }),
            json!({ "int32": " 5" }),
            json!({ "int32": "007" }),
            json!({ "int32": "0x5" }),
            json!({ "int32": "" }),
            json!({ "double": "NaN" }),
            json!({ "double": "1,5" }),
            json!({ "int32": true }),
            json!({ "bool": "yes" }),
            json!({ "bool": 1 }),
            json!({ "string": true }),
            json!({ "string": 1e300 }),
            json!({ "string": 1e-9 }),
            json!({ "color": "red" }),
            json!({ "color": 1 }),
            json!({ "color": "color_unspecified" }),
            json!({ "strings": "a" }),
            json!({ "int64s": 5 }),
            json!({ "bytes": 5 }),
            json!({ "tree": "{}" }),
            json!({ "struct": { "int32": "5" } }),
        ] {
            check(&ambiguous, &ambiguous);
        }
    }
}
