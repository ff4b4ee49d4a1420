//! JSON Schema 2020-12 from descriptors: what a client may send, and what comes back.

use std::collections::{BTreeMap, VecDeque};

use drawbridge_proto::mcp::v1 as mcp;
use drawbridge_sdk::contract::option;
use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{comments::Comments, rules};

mod kind;
#[cfg(test)]
pub(super) mod properties;
#[cfg(test)]
mod tests;
mod well_known;

pub(super) type Object = Map<String, Value>;

/// The most message types that one schema may define. A contract with more of them is no tool for a model.
const DEFINITIONS_MAX: usize = 256;
/// Of this type is a field that the edge fills itself.
pub(super) const INPUT_RESPONSES: &str = "drawbridge.mcp.v1.InputResponses";

/// What a schema is for. What is accepted and what is written differ: an unknown enum value, a rule that a
/// service does not keep, a field that is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Clients read which arguments a tool takes.
    Arguments,
    /// Arguments are checked: the same, and exactly what has a form as a message. What clients would rather
    /// read in words, or not at all, is here only: it costs a model much to read.
    Check,
    /// Clients read which results a tool gives.
    Result,
}

/// A message is built of too many others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message has more than {max} types below it", max = DEFINITIONS_MAX)]
pub(super) struct TooLarge;

/// The schema of a message as a top-level object. Clients see no `oneOf`, `anyOf` or `allOf` at its top, which
/// model APIs refuse.
pub(super) fn object_schema(
    message: &MessageDescriptor,
    purpose: Purpose,
    comments: &mut Comments,
) -> Result<Object, TooLarge> {
    let mut writer = Writer { purpose, comments, definitions: BTreeMap::new(), wanted: VecDeque::new() };
    let mut schema = writer.object(message);
    while let Some(message) = writer.wanted.pop_front() {
        if writer.definitions.len() > DEFINITIONS_MAX {
            return Err(TooLarge);
        }
        let definition = writer.object(&message);
        writer.definitions.insert(message.full_name().to_owned(), Value::Object(definition));
    }
    if !writer.definitions.is_empty() {
        schema.insert("$defs".into(), Value::Object(writer.definitions.into_iter().collect()));
    }
    Ok(schema)
}

struct Writer<'a> {
    purpose: Purpose,
    comments: &'a mut Comments,
    /// By full name. A message is in here, still empty, as soon as it is referred to.
    definitions: BTreeMap<String, Value>,
    /// Messages that are referred to and not defined yet.
    wanted: VecDeque<MessageDescriptor>,
}

/// Fields of which at most one may be set.
pub(super) struct Group {
    pub(super) fields: Vec<String>,
    /// Whether one of them must be.
    pub(super) required: bool,
}

impl Writer<'_> {
    fn object(&mut self, message: &MessageDescriptor) -> Object {
        let groups = if self.is_input() { rules::groups(message) } else { Vec::new() };
        let (mut properties, mut required) = (Object::new(), Vec::new());
        for field in message.fields() {
            if self.is_hidden(&field) {
                continue;
            }
            let grouped = groups.iter().any(|group| group.fields.iter().any(|name| name == field.name()));
            let (mut schema, needed) = self.property(&field, grouped);
            if let Some(description) = self.description(&field, &groups) {
                schema.insert("description".into(), json!(description));
            }
            if let Some(header) = self.header(&field) {
                schema.insert("x-mcp-header".into(), json!(header));
            }
            if needed {
                required.push(field.name().to_owned());
            }
            properties.insert(field.name().to_owned(), Value::Object(schema));
        }
        let mut schema = Object::new();
        schema.insert("type".into(), json!("object"));
        schema.insert("properties".into(), Value::Object(properties));
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        if !self.is_input() && message.extension_ranges().next().is_some() {
            schema.insert("patternProperties".into(), json!({ r"^\[": {} }));
        }
        schema.insert("additionalProperties".into(), json!(false));
        if self.purpose == Purpose::Check {
            check_groups(&mut schema, &groups);
        }
        schema
    }

    /// The schema of a field, and whether the field is always there.
    fn property(&mut self, field: &FieldDescriptor, grouped: bool) -> (Object, bool) {
        let mut schema = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
                let mut schema = into_object(json!({ "type": "object" }));
                if let Some(keys) = kind::map_key(&key, self.purpose) {
                    schema.insert("propertyNames".into(), keys);
                }
                schema.insert("additionalProperties".into(), Value::Object(self.value(&value)));
                schema
            }
            kind if field.is_list() => into_object(json!({ "type": "array", "items": self.value(&kind) })),
            kind => self.value(&kind),
        };
        if !self.is_input() {
            return (schema, !field.supports_presence());
        }
        let required = rules::constrain(&mut schema, field, grouped);
        (schema, required || field.cardinality() == Cardinality::Required)
    }

    fn value(&mut self, kind: &Kind) -> Object {
        let Kind::Message(message) = kind else { return kind::schema(kind, self.purpose) };
        let name = message.full_name();
        if let Some(schema) = well_known::schema(name, self.purpose) {
            return schema;
        }
        if !self.definitions.contains_key(name) {
            self.definitions.insert(name.to_owned(), Value::Bool(true));
            self.wanted.push_back(message.clone());
        }
        into_object(json!({ "$ref": format!("#/$defs/{name}") }))
    }

    /// The field's comment, and in words what model APIs take no keyword for.
    fn description(&mut self, field: &FieldDescriptor, groups: &[Group]) -> Option<String> {
        let mut text = self.comments.of_field(field).unwrap_or_default();
        for group in groups.iter().filter(|group| group.fields.iter().any(|name| name == field.name())) {
            let names: Vec<_> = group.fields.iter().map(|name| format!("`{name}`")).collect();
            let many = if group.required { "Exactly" } else { "At most" };
            text = format!("{text} {many} one of {} is set.", names.join(", "));
        }
        let text = text.trim();
        (!text.is_empty() && self.purpose != Purpose::Check).then(|| text.to_owned())
    }

    /// The header that repeats a plain argument (SEP-2243).
    fn header(&self, field: &FieldDescriptor) -> Option<String> {
        let plain = !field.is_list() && !field.is_map() && !matches!(field.kind(), Kind::Message(_));
        let options: Option<mcp::FieldOptions> = option(&field.options(), "drawbridge.mcp.v1.field");
        let header = options?.header;
        (plain && self.purpose == Purpose::Arguments && !header.is_empty()).then_some(header)
    }

    fn is_input(&self) -> bool {
        self.purpose != Purpose::Result
    }

    fn is_hidden(&self, field: &FieldDescriptor) -> bool {
        self.is_input()
            && matches!(field.kind(), Kind::Message(message) if message.full_name() == INPUT_RESPONSES)
    }
}

/// Says in keywords that at most one field of each group may be set, and one must be where it must.
fn check_groups(schema: &mut Object, groups: &[Group]) {
    let mut excluded: BTreeMap<&str, Object> = BTreeMap::new();
    let mut needed = Vec::new();
    for group in groups {
        for field in &group.fields {
            let others = group.fields.iter().filter(|other| *other != field);
            let others = others.map(|other| (other.clone(), Value::Bool(false)));
            excluded.entry(field).or_default().extend(others);
        }
        if group.required {
            let some: Vec<_> = group.fields.iter().map(|field| json!({ "required": [field] })).collect();
            needed.push(json!({ "anyOf": some }));
        }
    }
    excluded.retain(|_, others| !others.is_empty());
    if !excluded.is_empty() {
        let schemas = excluded.into_iter();
        let schemas: Object =
            schemas.map(|(field, others)| (field.to_owned(), json!({ "properties": others }))).collect();
        schema.insert("dependentSchemas".into(), Value::Object(schemas));
    }
    if !needed.is_empty() {
        schema.insert("allOf".into(), Value::Array(needed));
    }
}

/// What a text is not, when it does not match a pattern of a derived schema.
pub(super) fn in_words(pattern: &str) -> Option<&'static str> {
    kind::in_words(pattern).or_else(|| well_known::in_words(pattern))
}

pub(super) fn into_object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}
