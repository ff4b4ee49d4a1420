//! Arguments of a tool: checked against its schema, and read into the message that its RPC takes.

use std::{borrow::Cow, collections::HashSet};

use drawbridge_sdk::{contract::is_sensitive, dynamic};
use jsonschema::{
    ValidationError, Validator,
    error::ValidationErrorKind,
    paths::{Location, LocationSegment},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

pub(super) use self::normalize::normalize;
use super::ToolItem;
use crate::grpc::schema::{INPUT_RESPONSES, in_words};

pub(crate) mod normalize;
#[cfg(test)]
mod tests;

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
    let arguments = check(&tool.arguments, &input, arguments, |error| mistake(&input, error))?;
    let message = dynamic::from_json(input.clone(), &arguments).or_else(|error| {
        // A schema that is given as text may accept more than the contract does.
        let normalized = normalize(&input, &arguments);
        let fits = normalized != *arguments && tool.arguments.is_valid(&normalized);
        if fits { dynamic::from_json(input.clone(), &normalized) } else { Err(error) }
    });
    let message = message.map_err(|error| {
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

/// Arguments as they are changed on their way: checked against the schema that clients see, where it is another than
/// the service's, and with each value in the type of its field.
pub(crate) fn check_arguments<'a>(
    tool: &ToolItem,
    arguments: &'a Value,
) -> Result<Cow<'a, Value>, String> {
    let input = tool.target.input();
    let Some(shown) = &tool.shown_arguments else {
        // They are checked when they are changed.
        return Ok(normalized(&tool.arguments, &input, arguments));
    };
    // Under another name nobody knows what is sensitive.
    let renames = tool.transformation.as_ref().is_some_and(|changes| changes.request.is_some());
    if renames && holds_sensitive(&input) {
        return check(shown, &input, arguments, |error| {
            at_place(path(error.instance_path().iter()), masked_reason(error))
        });
    }
    check(shown, &input, arguments, |error| mistake(&input, error))
}

/// Arguments as they are, where the schema accepts them: one that is given as text may want a number as text. Others are
/// normalized.
fn normalized<'a>(
    schema: &Validator,
    input: &MessageDescriptor,
    arguments: &'a Value,
) -> Cow<'a, Value> {
    match schema.is_valid(arguments) {
        true => Cow::Borrowed(arguments),
        false => Cow::Owned(normalize(input, arguments)),
    }
}

fn check<'a>(
    schema: &Validator,
    input: &MessageDescriptor,
    arguments: &'a Value,
    mistake: impl Fn(&ValidationError<'_>) -> String,
) -> Result<Cow<'a, Value>, String> {
    let arguments = normalized(schema, input, arguments);
    match &arguments {
        Cow::Borrowed(_) => {}
        Cow::Owned(arguments) => check_normalized(schema, arguments, mistake)?,
    }
    Ok(arguments)
}

fn check_normalized(
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
        ValidationErrorKind::PropertyNames { error } => {
            return format!("the key {}", reason(error));
        }
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
        | ValidationErrorKind::PropertyNames { .. } => {
            "value has a name that is not allowed".to_owned()
        }
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
    segments.find(
        |segment| matches!(segment, LocationSegment::Property(name) if name == "dependentSchemas"),
    )?;
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
        let field =
            within.get_field_by_name(&name).or_else(|| within.get_field_by_json_name(&name))?;
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
            wanted.extend(
                value_type(&field).filter(|inner| seen.insert(inner.full_name().to_owned())),
            );
        }
    }
    false
}

/// The message that the field, its items or its values are.
fn value_type(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            entry.map_entry_value_field().kind().as_message().cloned()
        }
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
