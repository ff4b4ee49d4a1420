//! Arguments as models write them, in the form that the contract gives them: the only place that
//! does so, before anything checks, changes, decides on or keeps them.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Number, Value};

use drawbridge_sdk::dynamic::EXACT_INTEGER_MAX;

use crate::grpc::schema::{enum_names, wrapped};

const VALUE: &str = "google.protobuf.Value";
const NULL: &str = "google.protobuf.NullValue";

/// The arguments with each value in its field's type, where the type leaves no doubt:
///
/// - `null` is a field that is not given;
/// - a number, where the field is a number, may be given as text, and the other way round;
/// - `true` and `false` may be given as text, and the names of an enum in any case.
///
/// What leaves a doubt stays as it is, for the check to refuse.
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
        if value.is_null() && !takes_null(&field) {
            return false;
        }
        match (field.kind(), value) {
            (Kind::Message(entry), Value::Object(entries)) if field.is_map() => {
                let kind = entry.map_entry_value_field().kind();
                entries.values_mut().for_each(|value| one(&kind, value));
            }
            (kind, Value::Array(items)) if field.is_list() => {
                items.iter_mut().for_each(|item| one(&kind, item));
            }
            (kind, value) if !field.is_list() && !field.is_map() => one(&kind, value),
            _ => {}
        }
        true
    });
}

fn takes_null(field: &FieldDescriptor) -> bool {
    !field.is_list()
        && match field.kind() {
            Kind::Message(message) => message.full_name() == VALUE,
            Kind::Enum(descriptor) => descriptor.full_name() == NULL,
            _ => false,
        }
}

fn one(kind: &Kind, value: &mut Value) {
    match kind {
        Kind::Message(message) => match (wrapped(message.full_name()), value) {
            (Some(kind), value) => one(&kind, value),
            // The other well-known types are no objects of their fields.
            (None, Value::Object(object))
                if !message.full_name().starts_with("google.protobuf.") =>
            {
                fields(message, object);
            }
            (None, _) => {}
        },
        kind => {
            if let Some(meant) = scalar(kind, value) {
                *value = meant;
            }
        }
    }
}

/// What a value of another type means. None: it is of the field's type, or nobody can say.
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

/// A text that is an integer, to the last digit: one with a fraction or an exponent passes through a double, which
/// holds no more than 2^53 exactly.
fn integer(text: &str) -> Option<Number> {
    number(text).filter(|number| {
        let is_whole = number.is_i64() || number.is_u64();
        #[expect(clippy::cast_precision_loss, reason = "the greatest is exact")]
        let is_exact =
            || number.as_f64().is_some_and(|value| value.abs() <= EXACT_INTEGER_MAX as f64);
        is_whole || is_exact()
    })
}

/// A text that is a JSON number and nothing more.
fn number(text: &str) -> Option<Number> {
    let bare = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    text.bytes().all(bare).then(|| serde_json::from_str(text).ok()).flatten()
}

/// A number as a person writes it: whole ones without a fraction, and none with an exponent.
fn text(number: &Number) -> Option<String> {
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string());
    }
    let value = number.as_f64()?;
    #[expect(clippy::cast_precision_loss, reason = "the greatest is exact")]
    let is_plain = value.abs() <= EXACT_INTEGER_MAX as f64 && (value == 0.0 || value.abs() >= 1e-6);
    is_plain.then(|| value.to_string())
}

/// The name that a text is in another case, where it is that of one name alone.
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
    fn everything(given: &Value, meant: &Value) {
        let normalized = normalize(&testdata::message("Everything"), given);
        assert_eq!(normalized, *meant);
        assert_eq!(normalize(&testdata::message("Everything"), &normalized), *meant, "again");
    }

    #[test]
    fn null_is_a_field_that_is_not_given() {
        everything(
            &json!({ "string": null, "optional_int32": null, "strings": null, "by_int32": null, "tree": null,
                "string_value": null, "timestamp": null, "nested": { "renamed": null } }),
            &json!({ "nested": {} }),
        );
        // Where null is a value it stays, and where it is none of a list it is refused.
        let stays = json!({ "value": null, "null_value": null, "values": [null], "strings": [null], "unknown": null,
            "struct": { "a": null }, "by_sfixed64": { "1": null } });
        everything(&stays, &stays);
    }

    /// It became the nearest integer that a double holds.
    #[test]
    fn an_integer_that_a_double_does_not_hold_is_no_integer_with_a_fraction_or_an_exponent() {
        let stays = json!({ "int64": "9007199254740993.0", "uint64": "9.007199254740993e15" });
        everything(&stays, &stays);
        everything(
            &json!({ "int64": "2.0", "int32": "1e3" }),
            &json!({ "int64": 2.0, "int32": 1e3 }),
        );
    }

    #[test]
    fn a_number_may_be_text_and_a_text_a_number() {
        everything(
            &json!({ "int32": "5", "int64": "-9223372036854775808", "uint64": "18446744073709551615", "double": "1e3",
                "float": "0.1", "int64s": ["1", 2], "by_sint64": { "1": "2" }, "int64_value": "7", "string": 42,
                "strings": [1, 1.5, -3.0], "string_value": 1250.5, "trees": [{ "label": 3 }] }),
            &json!({ "int32": 5, "int64": i64::MIN, "uint64": u64::MAX, "double": 1e3, "float": 0.1, "int64s": [1, 2],
                "by_sint64": { "1": 2 }, "int64_value": 7, "string": "42", "strings": ["1", "1.5", "-3"],
                "string_value": "1250.5", "trees": [{ "label": "3" }] }),
        );
    }

    #[test]
    fn a_bool_may_be_text_and_an_enums_name_in_any_case() {
        everything(
            &json!({ "bool": "true", "bools": ["False", true], "bool_value": "TRUE", "color": "color_red",
                "colors": ["Color_Blue", "COLOR_RED"] }),
            &json!({ "bool": true, "bools": [false, true], "bool_value": true, "color": "COLOR_RED",
                "colors": ["COLOR_BLUE", "COLOR_RED"] }),
        );
    }

    #[test]
    fn what_leaves_a_doubt_stays_as_it_is() {
        for doubtful in [
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
            everything(&doubtful, &doubtful);
        }
    }
}
