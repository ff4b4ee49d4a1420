//! Rules of `buf.validate` as JSON Schema.
//!
//! They are read from the service's own copy of `validate.proto`, by name, whatever its version: a rule that is
//! not known here is left to the service, which checks all of them anyway.

use std::borrow::Cow;

use drawbridge_sdk::contract::raw_option as option;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value as Field,
};
use serde_json::{Value, json};

use self::values::{constraints, merge};
use super::{Group, Object, into_object};

mod strings;
#[cfg(test)]
mod tests;
mod values;

/// What is done with a field that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ignore {
    /// Without presence, the rules hold for zero too.
    Never,
    /// Zero keeps every rule.
    IfZero,
    /// No rule holds.
    Always,
}

/// Adds a field's rules to its schema, and says whether the field must be given. `grouped` is whether at most
/// one of it and others may be set, so that zero is as good as not set.
pub(super) fn constrain(schema: &mut Object, field: &FieldDescriptor, grouped: bool) -> bool {
    let Some(rules) = option(&field.options(), "buf.validate.field") else { return false };
    let ignore = match ignored(&rules) {
        Ignore::Never if grouped => Ignore::IfZero,
        ignore => ignore,
    };
    if ignore == Ignore::Always {
        return false;
    }
    let zero = zero(field);
    let only = constraints(&rules, &field.kind());
    let zero_breaks = zero.as_ref().is_some_and(|zero| breaks(&only, zero));
    let required = flag(&rules, "required");
    match zero {
        Some(zero) if zero_breaks && ignore == Ignore::IfZero && !required => {
            merge(schema, into_object(json!({ "anyOf": [{ "const": zero }, only] })));
        }
        zero => {
            merge(schema, only);
            if let Some(zero) = zero.filter(|_| required) {
                merge(schema, more_than(&zero, field));
            }
        }
    }
    // Where the contract cannot tell "not set" from zero and zero breaks a rule, the field has to be there.
    required || (zero_breaks && ignore == Ignore::Never)
}

/// The message's fields of which at most one may be set.
pub(super) fn groups(message: &MessageDescriptor) -> Vec<Group> {
    let oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic()).map(|oneof| Group {
        fields: oneof.fields().map(|field| field.name().to_owned()).collect(),
        required: option(&oneof.options(), "buf.validate.oneof")
            .is_some_and(|rules| flag(&rules, "required")),
    });
    let mut groups: Vec<_> = oneofs.collect();
    let rules = option(&message.options(), "buf.validate.message");
    for group in rules.iter().flat_map(|rules| messages(rules, "oneof")) {
        let fields: Vec<_> = texts(&group, "fields").collect();
        // A rule on fields that are not there is broken.
        if !fields.is_empty()
            && fields.iter().all(|field| message.get_field_by_name(field).is_some())
        {
            groups.push(Group { fields, required: flag(&group, "required") });
        }
    }
    groups
}

fn ignored(rules: &DynamicMessage) -> Ignore {
    let Some(field) = rules.descriptor().get_field_by_name("ignore") else { return Ignore::Never };
    let Kind::Enum(values) = field.kind() else { return Ignore::Never };
    let value =
        rules.get_field(&field).as_enum_number().and_then(|number| values.get_value(number));
    match value.as_ref().map(|value| value.name()) {
        Some("IGNORE_ALWAYS") => Ignore::Always,
        Some("IGNORE_IF_ZERO_VALUE" | "IGNORE_IF_UNPOPULATED" | "IGNORE_IF_DEFAULT_VALUE") => {
            Ignore::IfZero
        }
        _ => Ignore::Never,
    }
}

/// What a field that is not set reads as, where the contract cannot tell the two apart.
fn zero(field: &FieldDescriptor) -> Option<Value> {
    if field.supports_presence() {
        return None;
    }
    Some(match field.kind() {
        _ if field.is_list() => json!([]),
        _ if field.is_map() => json!({}),
        Kind::Bool => json!(false),
        Kind::String | Kind::Bytes => json!(""),
        Kind::Enum(descriptor) => json!(descriptor.default_value().name()),
        Kind::Message(_) => return None,
        _ => json!(0),
    })
}

fn breaks(only: &Object, zero: &Value) -> bool {
    let options = jsonschema::draft202012::options().should_validate_formats(true).offline();
    !only.is_empty()
        && options
            .build(&Value::Object(only.clone()))
            .is_ok_and(|validator| !validator.is_valid(zero))
}

/// The rule that a field without presence is more than zero.
fn more_than(zero: &Value, field: &FieldDescriptor) -> Object {
    into_object(match zero {
        Value::Array(_) => json!({ "minItems": 1 }),
        Value::Object(_) => json!({ "minProperties": 1 }),
        // An enum's zero has no name that may be sent, or else it is the only one.
        Value::String(_) if matches!(field.kind(), Kind::Enum(_)) => return Object::new(),
        Value::String(_) => json!({ "minLength": 1 }),
        zero => json!({ "not": { "const": zero } }),
    })
}

fn flag(rules: &DynamicMessage, name: &str) -> bool {
    set(rules, name).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn set(rules: &DynamicMessage, name: &str) -> Option<Field> {
    rules.has_field_by_name(name).then(|| rules.get_field_by_name(name))?.map(Cow::into_owned)
}

fn messages(rules: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    list(rules, name).iter().filter_map(|value| value.as_message().cloned()).collect()
}

fn texts(rules: &DynamicMessage, name: &str) -> impl Iterator<Item = String> {
    list(rules, name).into_iter().filter_map(|value| value.as_str().map(str::to_owned))
}

fn list(rules: &DynamicMessage, name: &str) -> Vec<Field> {
    set(rules, name).and_then(|value| value.as_list().map(<[_]>::to_vec)).unwrap_or_default()
}
