//! Checks the arguments of a tool against its schema and reads them into the request of its RPC.

use std::{borrow::Cow, collections::HashSet};

use drawbridge_contract::{dynamic, is_sensitive};
use jsonschema::{
    ValidationError, Validator,
    error::ValidationErrorKind,
    paths::{Location, LocationSegment},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

pub(super) use self::normalize::normalize;
use super::ToolItem;
use crate::grpc::schema::{INPUT_RESPONSES, describe_mismatch};

pub(crate) mod normalize;
#[cfg(test)]
mod tests;

/// The most errors in one message.
const ERRORS_MAX: usize = 5;
/// The longest text of one error, in characters.
const ERROR_CHARS_MAX: usize = 300;
/// The most values in arguments for which all errors are collected.
const VALUES_MAX: usize = 1000;

/// Reads arguments into the request message of the RPC. The error names each invalid argument and
/// the reason, and repeats no value of a sensitive field.
pub(crate) fn read_arguments(tool: &ToolItem, arguments: &Value) -> Result<DynamicMessage, String> {
    let input = tool.target.input();
    let arguments = check(&tool.arguments, &input, arguments, |error| describe(&input, error))?;
    let message = dynamic::from_json(input.clone(), &arguments).or_else(|error| {
        // A schema given as text may accept more than the contract does.
        let normalized = normalize(&input, &arguments);
        let is_valid = normalized != *arguments && tool.arguments.is_valid(&normalized);
        if is_valid { dynamic::from_json(input.clone(), &normalized) } else { Err(error) }
    });
    let message = message.map_err(|error| {
        // This error has no path, so it may repeat the value of a sensitive field.
        if has_sensitive(&input) {
            "the arguments do not fit the tool's contract".to_owned()
        } else {
            truncated(error.to_string())
        }
    })?;
    // A schema given as text may accept a field that only the edge may set.
    match input.fields().find(|field| is_set_by_edge(field) && message.has_field(field)) {
        Some(field) => Err(format!("{} is not an argument", field.name())),
        None => Ok(message),
    }
}

/// Checks arguments against the schema that clients see, where it differs from the service's, and
/// converts each value to the type of its field. Transformations take the result.
pub(crate) fn check_arguments<'a>(
    tool: &ToolItem,
    arguments: &'a Value,
) -> Result<Cow<'a, Value>, String> {
    let input = tool.target.input();
    let Some(shown) = &tool.shown_arguments else {
        // They are checked after the transformation.
        return Ok(normalized(&tool.arguments, &input, arguments));
    };
    // Where a program renames arguments, the sensitive ones are unknown.
    let is_renamed =
        tool.transformation.as_ref().is_some_and(|transformation| transformation.request.is_some());
    if is_renamed && has_sensitive(&input) {
        return check(shown, &input, arguments, |error| {
            with_path(path(error.instance_path().iter()), masked_reason(error))
        });
    }
    check(shown, &input, arguments, |error| describe(&input, error))
}

/// The arguments unchanged where the schema accepts them: one given as text may require a number as
/// text. Otherwise normalized.
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
    describe: impl Fn(&ValidationError<'_>) -> String,
) -> Result<Cow<'a, Value>, String> {
    let arguments = normalized(schema, input, arguments);
    match &arguments {
        Cow::Borrowed(_) => {}
        Cow::Owned(arguments) => check_normalized(schema, arguments, describe)?,
    }
    Ok(arguments)
}

fn check_normalized(
    schema: &Validator,
    arguments: &Value,
    describe: impl Fn(&ValidationError<'_>) -> String,
) -> Result<(), String> {
    let Err(first) = schema.validate(arguments) else { return Ok(()) };
    // `iter_errors` collects all errors eagerly, so large arguments get only the first one.
    let mut errors = match is_large(arguments) {
        true => vec![first],
        false => schema.iter_errors(arguments).collect(),
    };
    // One error per scalar value is enough.
    errors
        .dedup_by(|one, other| !is_container(one) && one.instance_path() == other.instance_path());
    let messages = errors.iter().take(ERRORS_MAX).map(|error| truncated(describe(error)));
    Err(messages.collect::<Vec<_>>().join("; "))
}

fn is_large(arguments: &Value) -> bool {
    let mut values = 0;
    let mut pending = vec![arguments];
    while let Some(value) = pending.pop() {
        values += 1;
        if values > VALUES_MAX {
            return true;
        }
        match value {
            Value::Array(items) => pending.extend(items.iter().take(VALUES_MAX)),
            Value::Object(fields) => pending.extend(fields.values().take(VALUES_MAX)),
            _ => {}
        }
    }
    false
}

fn is_set_by_edge(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(message) if message.full_name() == INPUT_RESPONSES)
}

/// The path of the invalid value and the reason.
fn describe(input: &MessageDescriptor, error: &ValidationError<'_>) -> String {
    let at = error.instance_path();
    let (at, reason) = match sensitive_part(input, at) {
        None => (path(at.iter()), reason(error)),
        Some(length) => (path(at.iter().take(length)), masked_reason(error)),
    };
    with_path(at, reason)
}

fn with_path(at: String, reason: String) -> String {
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
            if let Some(words) = describe_mismatch(pattern) {
                return format!("{} {words}", error.instance());
            }
        }
        _ => {}
    }
    // A whole object is too long to be useful, and a field in it may be sensitive.
    if is_container(error) { error.masked().to_string() } else { error.to_string() }
}

/// The reason without values or names from the arguments.
fn masked_reason(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { .. }
        | ValidationErrorKind::UnevaluatedProperties { .. }
        | ValidationErrorKind::PropertyNames { .. } => {
            "value has a name that is not allowed".to_owned()
        }
        ValidationErrorKind::Pattern { pattern } => match describe_mismatch(pattern) {
            Some(words) => format!("value {words}"),
            None => error.masked().to_string(),
        },
        _ => error.masked().to_string(),
    }
}

fn is_container(error: &ValidationError<'_>) -> bool {
    error.instance().is_object() || error.instance().is_array()
}

/// The field that excludes this one, by `dependentSchemas`.
fn excluded_by(schema: &Location) -> Option<String> {
    let mut segments = schema.iter();
    segments.find(
        |segment| matches!(segment, LocationSegment::Property(name) if name == "dependentSchemas"),
    )?;
    segments.next().map(|other| other.to_string())
}

/// The fields one of which is required, if each branch fails only for that.
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

/// A path in the form `lines[0].text`.
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

/// The number of path segments up to a sensitive field, if the path leads through one.
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

/// Whether a field of the message or of a nested message is sensitive.
fn has_sensitive(message: &MessageDescriptor) -> bool {
    let mut seen = HashSet::from([message.full_name().to_owned()]);
    let mut pending = vec![message.clone()];
    while let Some(message) = pending.pop() {
        for field in message.fields() {
            if is_sensitive(&field) {
                return true;
            }
            pending.extend(
                value_type(&field).filter(|inner| seen.insert(inner.full_name().to_owned())),
            );
        }
    }
    false
}

/// The message type of the field, its items or its map values.
fn value_type(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            entry.map_entry_value_field().kind().as_message().cloned()
        }
        kind => kind.as_message().cloned(),
    }
}

fn truncated(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(ERROR_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}
