use std::sync::Arc;

use prost_reflect::Value as Field;
use serde_json::json;

use super::*;
use crate::catalog::testdata;

fn tool(name: &str) -> Arc<ToolItem> {
    let mut tools = testdata::catalog().tools.into_iter();
    tools.find(|tool| tool.item.name == name).unwrap()
}

#[track_caller]
fn check_error(tool: &ToolItem, arguments: &Value, expected: &str) {
    let message = read_arguments(tool, arguments).map(drop).expect_err(expected);
    assert_eq!(message, expected);
}

#[tokio::test]
async fn an_invalid_argument_is_reported_with_its_path_and_reason() {
    let everything = tool("test_take_everything");
    for (arguments, expected) in [
        (json!({ "string": true }), r#"string: true is not of type "string""#),
        (
            json!({ "trees": [{}, { "label": [] }] }),
            r#"trees[1].label: value is not of type "string""#,
        ),
        (json!({ "by_string": { "a/b": 7 } }), r#"by_string.a/b: 7 is not of type "string""#),
        (
            json!({ "int32": "2147483648" }),
            "int32: 2147483648 is greater than the maximum of 2147483647",
        ),
        (
            json!({ "int64": "9223372036854775808" }),
            "int64: 9223372036854775808 is greater than the maximum of 9223372036854775807",
        ),
        (
            json!({ "uint64": 18_446_744_073_709_551_616.0 }),
            "uint64: 1.8446744073709552e+19 is greater than the maximum of 18446744073709551615",
        ),
        (json!({ "int64s": [1, 1.5] }), r#"int64s[1]: 1.5 is not of type "integer""#),
        (json!({ "uint32": -1 }), "uint32: -1 is less than the minimum of 0"),
        (json!({ "color": "COLOR_UNSPECIFIED" }), ""),
        (json!({ "bytes": "-_-_" }), r#"bytes: "-_-_" is not base64"#),
        (
            json!({ "timestamp": "now" }),
            r#"timestamp: "now" is not a timestamp (expected e.g. 2024-02-29T12:00:00Z)"#,
        ),
        (json!({ "duration": "1h" }), r#"duration: "1h" is not a duration (expected e.g. 1.5s)"#),
        (
            json!({ "by_int32": { "x": "" } }),
            r#"by_int32: the key "x" is not a number or is out of range"#,
        ),
        (
            json!({ "other": 1, "string_": 1 }),
            "Additional properties are not allowed ('other', 'string_' were unexpected)",
        ),
    ] {
        if expected.is_empty() {
            let message = read_arguments(&everything, &arguments).map(drop).unwrap_err();
            let (field, value) = arguments.as_object().unwrap().iter().next().unwrap();
            assert!(message.starts_with(&format!("{field}: {value} is not")), "{message}");
        } else {
            check_error(&everything, &arguments, expected);
        }
    }
}

#[tokio::test]
async fn a_violated_choice_is_reported_in_words() {
    let choices = tool("test_take_choices");
    assert!(read_arguments(&choices, &json!({ "a": "", "x": "" })).is_ok());
    check_error(&choices, &json!({}), "one of a, b must be given");
    check_error(&choices, &json!({ "b": 1, "inner": {} }), "inner: one of a, b must be given");
    let both = "y: cannot be given together with x; x: cannot be given together with y";
    check_error(&choices, &json!({ "b": 1, "x": "", "y": "" }), both);
}

#[tokio::test]
async fn a_sensitive_value_is_never_repeated_in_an_error() {
    for (arguments, expected) in [
        (json!({ "shown": "hunter2" }), r#"shown: "hunter2" is longer than 3 characters"#),
        (json!({ "secret": "hunter2" }), "secret: value is longer than 3 characters"),
        (
            json!({ "inner": [{ "secret": "hunter2" }] }),
            "inner[0].secret: value is longer than 3 characters",
        ),
        (
            json!({ "by_name": { "a": { "secret": "hunter2" } } }),
            "by_name.a.secret: value is longer than 3 characters",
        ),
        (json!({ "inner": { "secret": "hunter2" } }), r#"inner: value is not of type "array""#),
        (json!({ "sealed": "hunter2" }), r#"sealed: value is not of type "object""#),
        (json!({ "pins": { "hunter2": "" } }), "pins: value has a name that is not allowed"),
        (json!({ "pins": { "1": true } }), r#"pins: value is not of type "string""#),
        (json!({ "vault": { "hunter2": 1 } }), "vault: value has a name that is not allowed"),
    ] {
        check_error(&tool("test_take_secretive"), &arguments, expected);
    }
    // Its schema accepts everything, and errors of the conversion have no path.
    let given = tool("test_take_given");
    let expected = "the arguments do not fit the tool's contract";
    check_error(&given, &json!({ "secret": true }), expected);
    check_error(&given, &json!({ "hunter2": 1 }), expected);
    assert!(read_arguments(&given, &json!({ "secret": "hunter2" })).is_ok());
    assert_eq!(
        read_arguments(&given, &json!({ "secret": 7 })),
        read_arguments(&given, &json!({ "secret": "7" }))
    );
}

#[tokio::test]
async fn error_messages_are_bounded() {
    let everything = tool("test_take_everything");
    let long = json!({ "color": "x".repeat(1_000_000), "y".repeat(1_000_000): 1 });
    let message = read_arguments(&everything, &long).map(drop).unwrap_err();
    assert!(message.chars().count() <= 2 * (ERROR_CHARS_MAX + 3), "{}", message.len());
    let long = json!({ "by_string": { "z".repeat(1_000_000): 1 } });
    let message = read_arguments(&everything, &long).map(drop).unwrap_err();
    assert!(message.chars().count() <= ERROR_CHARS_MAX + 1, "{}", message.len());

    let many = |count: usize| json!({ "strings": vec![true; count] });
    let message = |count| read_arguments(&everything, &many(count)).map(drop).unwrap_err();
    assert_eq!(message(10).matches("is not of type").count(), ERRORS_MAX);
    assert_eq!(message(100_000).matches("is not of type").count(), 1);
}

#[tokio::test]
async fn a_method_whose_schema_has_an_external_reference_is_left_out() {
    let catalog = testdata::catalog();
    let names: Vec<_> = catalog.tools.iter().map(|tool| tool.item.name.as_str()).collect();
    assert!(
        names.contains(&"test_take_given") && !names.contains(&"test_take_broken"),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_normalized_value_gives_the_same_message() {
    let everything = tool("test_take_everything");
    let message = |arguments: &Value| read_arguments(&everything, arguments).unwrap();
    let given = json!({
        "uint64": u64::MAX, "double": 1.5, "string": "42", "bool": true, "color": "COLOR_RED"
    });
    for same in [
        json!({
            "uint64": u64::MAX.to_string(), "double": "1.5", "string": 42, "bool": "true",
            "color": "color_red",
        }),
        json!({
            "uint64": u64::MAX, "double": 1.5, "string": 42, "bool": true, "color": "COLOR_RED",
            "int32": null, "timestamp": null, "optional_string": null,
        }),
    ] {
        assert_eq!(message(&same), message(&given), "{same}");
    }
    // Null does not satisfy `required`.
    let ruled = tool("test_take_ruled");
    let message = read_arguments(&ruled, &json!({ "name": null })).unwrap_err();
    assert!(message.contains("\"name\" is a required property"), "{message}");
}

#[tokio::test]
async fn a_schema_text_may_require_a_number_as_text() {
    let mut given = ToolItem::clone(&tool("test_take_everything"));
    let schema = json!({ "type": "object", "properties": { "int64": { "type": "string" } } });
    given.arguments = Arc::new(jsonschema::draft202012::new(&schema).unwrap());
    let message = read_arguments(&given, &json!({ "int64": "5" })).unwrap();
    assert_eq!(message.get_field_by_name("int64").unwrap().into_owned(), Field::I64(5));
}

#[tokio::test]
async fn arguments_are_read_into_the_message() {
    let ruled = json!({
        "name": "ab", "email": "a@example.com", "page": 3, "accepted": true,
        "other_color": "COLOR_RED", "tags": ["one"], "key": "AAAAAA==", "tree": {}, "nonzero": -1,
        "large": 18_446_744_073_709_551_614_u64,
    });
    let message = read_arguments(&tool("test_take_ruled"), &ruled).unwrap();
    let large = message.get_field_by_name("large").unwrap().into_owned();
    assert_eq!(large, Field::U64(18_446_744_073_709_551_614));
}
