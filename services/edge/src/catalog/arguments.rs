//! Arguments of a tool: checked against its schema, and read into the message that its RPC takes.

use std::collections::HashSet;

use drawbridge_sdk::{contract::is_sensitive, dynamic};
use jsonschema::{
    ValidationError, Validator,
    error::ValidationErrorKind,
    paths::{Location, LocationSegment},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use super::{
    ToolItem,
    schema::{INPUT_RESPONSES, in_words},
};

/// The most mistakes that are told at once.
const MISTAKES_MAX: usize = 5;
/// The longest that one mistake is told, in characters.
const MISTAKE_CHARS_MAX: usize = 300;
/// The most values in arguments of which all mistakes are looked for.
const VALUES_MAX: usize = 1000;

/// Reads arguments into the message that the RPC takes, or says which are wrong and why. What it says repeats no
/// value of a sensitive field.
pub(crate) fn read_arguments(tool: &ToolItem, arguments: &Value) -> Result<DynamicMessage, String> {
    let input = tool.target.input();
    check(&tool.arguments, arguments, |error| mistake(&input, error))?;
    let message = dynamic::from_json(input.clone(), arguments).map_err(|error| {
        // What is wrong here has no path, so no one knows whose value it repeats.
        if holds_sensitive(&input) {
            "the arguments do not fit the tool's contract".to_owned()
        } else {
            cut(error.to_string())
        }
    })?;
    // A schema that is given as text may let through what is for the edge alone to say.
    match input.fields().find(|field| is_for_the_edge(field) && message.has_field(field)) {
        Some(field) => Err(format!("{} is not an argument", field.name())),
        None => Ok(message),
    }
}

/// Checks arguments against the schema that clients see, where it is another than the service's.
pub(crate) fn check_arguments(tool: &ToolItem, arguments: &Value) -> Result<(), String> {
    let Some(shown) = &tool.shown_arguments else { return Ok(()) };
    let input = tool.target.input();
    // Under another name nobody knows what is sensitive.
    let renames = tool.transformation.as_ref().is_some_and(|changes| changes.request.is_some());
    if renames && holds_sensitive(&input) {
        return check(shown, arguments, |error| {
            at_place(path(error.instance_path().iter()), masked_reason(error))
        });
    }
    check(shown, arguments, |error| mistake(&input, error))
}

fn check(
    schema: &Validator,
    arguments: &Value,
    mistake: impl Fn(&ValidationError<'_>) -> String,
) -> Result<(), String> {
    let Err(first) = schema.validate(arguments) else { return Ok(()) };
    // All mistakes are found before the first is told, so that in many arguments only one may be looked for.
    let mut errors = match is_large(arguments) {
        true => vec![first],
        false => schema.iter_errors(arguments).collect(),
    };
    // One thing that is wrong with a value is enough.
    errors.dedup_by(|one, other| !is_whole(one) && one.instance_path() == other.instance_path());
    let mistakes = errors.iter().take(MISTAKES_MAX).map(|error| cut(mistake(error)));
    Err(mistakes.collect::<Vec<_>>().join("; "))
}

fn is_large(arguments: &Value) -> bool {
    let mut values = 0;
    let mut wanted = vec![arguments];
    while let Some(value) = wanted.pop() {
        values += 1;
        if values > VALUES_MAX {
            return true;
        }
        match value {
            Value::Array(items) => wanted.extend(items.iter().take(VALUES_MAX)),
            Value::Object(fields) => wanted.extend(fields.values().take(VALUES_MAX)),
            _ => {}
        }
    }
    false
}

fn is_for_the_edge(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(message) if message.full_name() == INPUT_RESPONSES)
}

/// What is wrong, and with which field.
fn mistake(input: &MessageDescriptor, error: &ValidationError<'_>) -> String {
    let at = error.instance_path();
    let (at, reason) = match sensitive_part(input, at) {
        None => (path(at.iter()), reason(error)),
        Some(length) => (path(at.iter().take(length)), masked_reason(error)),
    };
    at_place(at, reason)
}

fn at_place(at: String, reason: String) -> String {
    if at.is_empty() { reason } else { format!("{at}: {reason}") }
}

fn reason(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::FalseSchema => {
            if let Some(other) = excluded_by(error.schema_path()) {
                return format!("cannot be given together with {other}");
            }
        }
        ValidationErrorKind::AnyOf { context } => {
            if let Some(fields) = all_required(context) {
                return format!("one of {} must be given", fields.join(", "));
            }
        }
        ValidationErrorKind::PropertyNames { error } => return format!("the key {}", reason(error)),
        ValidationErrorKind::Pattern { pattern } => {
            if let Some(words) = in_words(pattern) {
                return format!("{} {words}", error.instance());
            }
        }
        _ => {}
    }
    // To be told a whole object helps nobody, and a field in it may be sensitive.
    if is_whole(error) { error.masked().to_string() } else { error.to_string() }
}

/// The reason without any of what was sent: neither values nor names.
fn masked_reason(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { .. }
        | ValidationErrorKind::UnevaluatedProperties { .. }
        | ValidationErrorKind::PropertyNames { .. } => "value has a name that is not allowed".to_owned(),
        ValidationErrorKind::Pattern { pattern } => match in_words(pattern) {
            Some(words) => format!("value {words}"),
            None => error.masked().to_string(),
        },
        _ => error.masked().to_string(),
    }
}

fn is_whole(error: &ValidationError<'_>) -> bool {
    error.instance().is_object() || error.instance().is_array()
}

/// The field that excludes this one, where the schema says so.
fn excluded_by(schema: &Location) -> Option<String> {
    let mut segments = schema.iter();
    segments
        .find(|segment| matches!(segment, LocationSegment::Property(name) if name == "dependentSchemas"))?;
    segments.next().map(|other| other.to_string())
}

/// The fields of which one is required, when that is all that is wrong.
fn all_required(context: &[Vec<ValidationError<'_>>]) -> Option<Vec<String>> {
    context
        .iter()
        .map(|branch| match branch.as_slice() {
            [error] => match error.kind() {
                ValidationErrorKind::Required { property } => property.as_str().map(str::to_owned),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

/// A path as people write it: `lines[0].text`.
fn path<'a>(segments: impl Iterator<Item = LocationSegment<'a>>) -> String {
    let mut path = String::new();
    for segment in segments {
        match segment {
            LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
            LocationSegment::Property(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
            }
        }
    }
    path
}

/// How much of the path leads to a sensitive field, if it does.
fn sensitive_part(input: &MessageDescriptor, location: &Location) -> Option<usize> {
    let mut message = Some(input.clone());
    let mut segments = location.iter().enumerate();
    while let (Some(within), Some((at, segment))) = (message.take(), segments.next()) {
        let name = segment.to_string();
        let field = within.get_field_by_name(&name).or_else(|| within.get_field_by_json_name(&name))?;
        if is_sensitive(&field) {
            return Some(at + 1);
        }
        if field.is_list() || field.is_map() {
            segments.next();
        }
        message = value_type(&field);
    }
    None
}

/// Whether a field of the message, or of one in it, is sensitive.
fn holds_sensitive(message: &MessageDescriptor) -> bool {
    let mut seen = HashSet::from([message.full_name().to_owned()]);
    let mut wanted = vec![message.clone()];
    while let Some(message) = wanted.pop() {
        for field in message.fields() {
            if is_sensitive(&field) {
                return true;
            }
            wanted.extend(value_type(&field).filter(|inner| seen.insert(inner.full_name().to_owned())));
        }
    }
    false
}

/// The message that the field, its items or its values are.
fn value_type(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind().as_message().cloned(),
        kind => kind.as_message().cloned(),
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MISTAKE_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
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
    fn wrong(tool: &ToolItem, arguments: &Value, says: &str) {
        let told = read_arguments(tool, arguments).map(drop).expect_err(says);
        assert_eq!(told, says);
    }

    #[tokio::test]
    async fn a_mistake_is_told_with_its_field_and_why() {
        let everything = tool("test_take_everything");
        for (arguments, says) in [
            (json!({ "string": 7 }), r#"string: 7 is not of type "string""#),
            (json!({ "trees": [{}, { "label": [] }] }), r#"trees[1].label: value is not of type "string""#),
            (json!({ "by_string": { "a/b": 7 } }), r#"by_string.a/b: 7 is not of type "string""#),
            (json!({ "int64s": [1, 1.5] }), r#"int64s[1]: 1.5 is not of type "integer""#),
            (json!({ "uint32": -1 }), "uint32: -1 is less than the minimum of 0"),
            (json!({ "color": "COLOR_UNSPECIFIED" }), ""),
            (json!({ "bytes": "-_-_" }), r#"bytes: "-_-_" is not base64"#),
            (json!({ "timestamp": "now" }), r#"timestamp: "now" is no time such as 2024-02-29T12:00:00Z"#),
            (json!({ "duration": "1h" }), r#"duration: "1h" is no duration such as 1.5s"#),
            (json!({ "by_int32": { "x": "" } }), r#"by_int32: the key "x" is no number, or out of range"#),
            (
                json!({ "other": 1, "string_": 1 }),
                "Additional properties are not allowed ('other', 'string_' were unexpected)",
            ),
        ] {
            if says.is_empty() {
                let told = read_arguments(&everything, &arguments).map(drop).unwrap_err();
                let (field, value) = arguments.as_object().unwrap().iter().next().unwrap();
                assert!(told.starts_with(&format!("{field}: {value} is not")), "{told}");
            } else {
                wrong(&everything, &arguments, says);
            }
        }
    }

    #[tokio::test]
    async fn a_choice_is_told_in_words() {
        let choices = tool("test_take_choices");
        assert!(read_arguments(&choices, &json!({ "a": "", "x": "" })).is_ok());
        wrong(&choices, &json!({}), "one of a, b must be given");
        wrong(&choices, &json!({ "b": 1, "inner": {} }), "inner: one of a, b must be given");
        let both = "y: cannot be given together with x; x: cannot be given together with y";
        wrong(&choices, &json!({ "b": 1, "x": "", "y": "" }), both);
    }

    #[tokio::test]
    async fn a_sensitive_value_is_never_said_back() {
        for (arguments, says) in [
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
            (json!({ "pins": { "1": 2 } }), r#"pins: value is not of type "string""#),
            (json!({ "vault": { "hunter2": 1 } }), "vault: value has a name that is not allowed"),
        ] {
            wrong(&tool("test_take_secretive"), &arguments, says);
        }
        // Its given schema lets everything through, and the converter has no path to tell.
        let given = tool("test_take_given");
        let told = "the arguments do not fit the tool's contract";
        wrong(&given, &json!({ "secret": 7 }), told);
        wrong(&given, &json!({ "hunter2": 1 }), told);
        assert!(read_arguments(&given, &json!({ "secret": "hunter2" })).is_ok());
    }

    #[tokio::test]
    async fn what_is_told_is_bounded() {
        let everything = tool("test_take_everything");
        let long = json!({ "color": "x".repeat(1_000_000), "y".repeat(1_000_000): 1 });
        let told = read_arguments(&everything, &long).map(drop).unwrap_err();
        assert!(told.chars().count() <= 2 * (MISTAKE_CHARS_MAX + 3), "{}", told.len());
        let long = json!({ "by_string": { "z".repeat(1_000_000): 1 } });
        let told = read_arguments(&everything, &long).map(drop).unwrap_err();
        assert!(told.chars().count() <= MISTAKE_CHARS_MAX + 1, "{}", told.len());

        let many = |count: usize| json!({ "strings": vec![1; count] });
        let told = |count| read_arguments(&everything, &many(count)).map(drop).unwrap_err();
        assert_eq!(told(10).matches("is not of type").count(), MISTAKES_MAX);
        assert_eq!(told(100_000).matches("is not of type").count(), 1);
    }

    #[tokio::test]
    async fn a_method_whose_given_schema_refers_elsewhere_is_left_out() {
        let catalog = testdata::catalog();
        let names: Vec<_> = catalog.tools.iter().map(|tool| tool.item.name.as_str()).collect();
        assert!(names.contains(&"test_take_given") && !names.contains(&"test_take_broken"), "{names:?}");
    }

    #[tokio::test]
    async fn arguments_become_the_message() {
        let ruled = json!({
            "name": "ab", "email": "a@example.com", "page": 3, "accepted": true, "other_color": "COLOR_RED",
            "tags": ["one"], "key": "AAAAAA==", "tree": {}, "nonzero": -1, "large": 18_446_744_073_709_551_614_u64,
        });
        let message = read_arguments(&tool("test_take_ruled"), &ruled).unwrap();
        let large = message.get_field_by_name("large").unwrap().into_owned();
        assert_eq!(large, Field::U64(18_446_744_073_709_551_614));
    }
}
