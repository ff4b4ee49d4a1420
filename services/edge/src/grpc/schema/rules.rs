//! Rules of `buf.validate` as JSON Schema.
//!
//! Rules are read by name from the service's own copy of `validate.proto`, in any version. Unknown
//! rules are left to the service, which checks all of them anyway.

use std::borrow::Cow;

use drawbridge_contract::raw_option as option;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value as Field,
};
use serde_json::{Value, json};

use self::{keywords::merge, values::constraints};
use super::{Group, SchemaObject, into_object};

mod keywords;
mod strings;
#[cfg(test)]
mod tests;
mod values;

/// When rules do not apply to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IgnoreMode {
    /// Rules always apply, for a field without presence also to zero.
    Never,
    /// Rules do not apply to zero.
    IfZero,
    /// Rules never apply.
    Always,
}

/// Adds the rules of a field to its schema. Returns whether the field is required. `is_grouped`:
/// at most one field of a group may be set, so zero counts as unset.
pub(super) fn constrain(
    schema: &mut SchemaObject,
    field: &FieldDescriptor,
    is_grouped: bool,
) -> bool {
    let Some(rules) = option(&field.options(), "buf.validate.field") else { return false };
    let ignore = match ignore_mode(&rules) {
        IgnoreMode::Never if is_grouped => IgnoreMode::IfZero,
        ignore => ignore,
    };
    if ignore == IgnoreMode::Always {
        return false;
    }
    let zero = zero(field);
    let constrained = constraints(&rules, &field.kind());
    let zero_violates = zero.as_ref().is_some_and(|zero| violates(&constrained, zero));
    let required = flag(&rules, "required");
    match zero {
        Some(zero) if zero_violates && ignore == IgnoreMode::IfZero && !required => {
            merge(schema, into_object(json!({ "anyOf": [{ "const": zero }, constrained] })));
        }
        zero => {
            merge(schema, constrained);
            if let Some(zero) = zero.filter(|_| required) {
                merge(schema, exclude_zero(&zero, field));
            }
        }
    }
    // Without presence, unset is zero. Where zero violates a rule, the field is required.
    required || (zero_violates && ignore == IgnoreMode::Never)
}

/// The groups of fields of which at most one may be set.
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
        // A rule on missing fields is invalid.
        if !fields.is_empty()
            && fields.iter().all(|field| message.get_field_by_name(field).is_some())
        {
            groups.push(Group { fields, required: flag(&group, "required") });
        }
    }
    groups
}

fn ignore_mode(rules: &DynamicMessage) -> IgnoreMode {
    let Some(field) = rules.descriptor().get_field_by_name("ignore") else {
        return IgnoreMode::Never;
    };
    let Kind::Enum(values) = field.kind() else { return IgnoreMode::Never };
    let value =
        rules.get_field(&field).as_enum_number().and_then(|number| values.get_value(number));
    match value.as_ref().map(|value| value.name()) {
        Some("IGNORE_ALWAYS") => IgnoreMode::Always,
        Some("IGNORE_IF_ZERO_VALUE" | "IGNORE_IF_UNPOPULATED" | "IGNORE_IF_DEFAULT_VALUE") => {
            IgnoreMode::IfZero
        }
        _ => IgnoreMode::Never,
    }
}

/// The value of an unset field without presence.
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

fn violates(constrained: &SchemaObject, zero: &Value) -> bool {
    let options = jsonschema::draft202012::options().should_validate_formats(true).offline();
    !constrained.is_empty()
        && options
            .build(&Value::Object(constrained.clone()))
            .is_ok_and(|validator| !validator.is_valid(zero))
}

/// The keyword by which a field without presence must not be zero.
fn exclude_zero(zero: &Value, field: &FieldDescriptor) -> SchemaObject {
    into_object(match zero {
        Value::Array(_) => json!({ "minItems": 1 }),
        Value::Object(_) => json!({ "minProperties": 1 }),
        // The zero of an enum has no name in arguments, or it is the constrained one.
        Value::String(_) if matches!(field.kind(), Kind::Enum(_)) => return SchemaObject::new(),
        Value::String(_) => json!({ "minLength": 1 }),
        zero => json!({ "not": { "const": zero } }),
    })
}

fn flag(rules: &DynamicMessage, name: &str) -> bool {
    get(rules, name).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn get(rules: &DynamicMessage, name: &str) -> Option<Field> {
    rules.has_field_by_name(name).then(|| rules.get_field_by_name(name))?.map(Cow::into_owned)
}

fn messages(rules: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    list(rules, name).iter().filter_map(|value| value.as_message().cloned()).collect()
}

fn texts(rules: &DynamicMessage, name: &str) -> impl Iterator<Item = String> {
    list(rules, name).into_iter().filter_map(|value| value.as_str().map(str::to_owned))
}

fn list(rules: &DynamicMessage, name: &str) -> Vec<Field> {
    get(rules, name).and_then(|value| value.as_list().map(<[_]>::to_vec)).unwrap_or_default()
}
