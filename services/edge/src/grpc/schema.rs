//! JSON Schema 2020-12 from descriptors: what a client may send, and what comes back.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use drawbridge_proto::mcp::v1 as mcp;
use drawbridge_sdk::contract::option;
use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;

pub(crate) use self::{kind::names as enum_names, well_known::wrapped};

mod kind;
mod portable;
#[cfg(test)]
pub(crate) mod properties;
mod rules;
#[cfg(test)]
mod tests;
mod well_known;

pub(crate) type Object = Map<String, Value>;

/// The most message types that one schema may define. A contract with more of them is no tool for a model.
const DEFINITIONS_MAX: usize = 256;
/// Of this type is a field that the edge fills itself.
pub(crate) const INPUT_RESPONSES: &str = "drawbridge.mcp.v1.InputResponses";
/// Types of this package are between services and the edge, which gives clients what they mean.
const CONTRACT: &str = "drawbridge.mcp.v1.";

/// The most properties that one schema may have once every message is written out. OpenAI takes 5,000.
const PROPERTIES_MAX: usize = 5000;
/// How long the derived schema of a result may be, in bytes. Some clients show it to their models with every request: a
/// longer one describes fewer levels.
const RESULT_BYTES_MAX: usize = 3072;
/// How long it may be with what fields mean and which are always there, in bytes.
const DESCRIBED_RESULT_BYTES_MAX: usize = 1536;
/// How many levels of messages the schema of a result describes at most.
const RESULT_LEVELS_MAX: usize = 8;

/// What a schema is for. What is accepted and what is written differ: an unknown enum value, a rule that a
/// service does not keep, a field that is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Clients read which arguments a tool takes: in keywords that every model API takes, and else in words.
    Arguments,
    /// Arguments are checked: the same, and exactly what has a form as a message. What clients would rather
    /// read in words, or not at all, is here only: it costs a model much to read.
    Check,
    /// Clients read which results a tool gives.
    Result,
}

/// A message is built of too many others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooLarge {
    /// Types.
    #[error("a message has more than {max} types below it", max = DEFINITIONS_MAX)]
    Types,
    /// Fields.
    #[error("a message has more than {max} fields, with those of the messages in it", max = PROPERTIES_MAX)]
    Properties,
}

/// How much a schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Detail {
    /// What fields mean, and which are always there.
    described: bool,
    /// How many levels of messages are described. What is deeper is an object of which nothing is said.
    levels: usize,
}

impl Detail {
    const ALL: Self = Self { described: true, levels: usize::MAX };
}

/// The schema of a message as a top-level object. Clients see no `oneOf`, `anyOf` or `allOf` at its top, which
/// model APIs refuse. For [`Purpose::Result`] it says as much as fits [`RESULT_BYTES_MAX`].
pub(crate) fn object_schema(
    message: &MessageDescriptor,
    purpose: Purpose,
    comments: &mut Comments,
) -> Result<Object, TooLarge> {
    if purpose != Purpose::Result {
        return write(message, purpose, Detail::ALL, comments);
    }
    let described =
        (Detail { described: true, levels: RESULT_LEVELS_MAX }, DESCRIBED_RESULT_BYTES_MAX);
    let names = (1..=RESULT_LEVELS_MAX).rev();
    let names = names.map(|levels| (Detail { described: false, levels }, RESULT_BYTES_MAX));
    let mut written = Err(TooLarge::Properties);
    for (detail, bytes_max) in std::iter::once(described).chain(names) {
        written = write(message, purpose, detail, comments);
        if written.as_ref().is_ok_and(|schema| json!(schema).to_string().len() <= bytes_max) {
            break;
        }
    }
    written
}

fn write(
    message: &MessageDescriptor,
    purpose: Purpose,
    detail: Detail,
    comments: &mut Comments,
) -> Result<Object, TooLarge> {
    let mut writer = Writer {
        purpose,
        detail,
        level: 1,
        properties: 0,
        comments,
        recursive: HashMap::new(),
        definitions: BTreeMap::new(),
        wanted: VecDeque::new(),
    };
    let mut schema = writer.object(message);
    while let Some(message) = writer.wanted.pop_front() {
        if writer.definitions.len() > DEFINITIONS_MAX {
            return Err(TooLarge::Types);
        }
        let definition = writer.definition(&message);
        writer.definitions.insert(message.full_name().to_owned(), Value::Object(definition));
    }
    if writer.properties > PROPERTIES_MAX {
        return Err(TooLarge::Properties);
    }
    if !writer.definitions.is_empty() {
        schema.insert("$defs".into(), Value::Object(writer.definitions.into_iter().collect()));
    }
    Ok(schema)
}

struct Writer<'a> {
    purpose: Purpose,
    detail: Detail,
    /// Of the message that is being written. The first is 1.
    level: usize,
    /// How many there are so far.
    properties: usize,
    comments: &'a mut Comments,
    /// Whether a message contains itself, by full name.
    recursive: HashMap<String, bool>,
    /// By full name. A message is in here, still empty, as soon as it is referred to.
    definitions: BTreeMap<String, Value>,
    /// Messages that are referred to and not defined yet.
    wanted: VecDeque<MessageDescriptor>,
}

/// Fields of which at most one may be set.
pub(crate) struct Group {
    pub(crate) fields: Vec<String>,
    /// Whether one of them must be.
    pub(crate) required: bool,
}

impl Writer<'_> {
    /// A message that others refer to. No place that refers to it says what it is, so it says so itself.
    fn definition(&mut self, message: &MessageDescriptor) -> Object {
        let mut schema = self.object(message);
        if self.purpose == Purpose::Arguments
            && let Some(comment) = self.comments.of(&message.parent_file(), message.path())
        {
            schema.insert("description".into(), json!(comment));
        }
        schema
    }

    fn object(&mut self, message: &MessageDescriptor) -> Object {
        let groups = if self.is_input() { rules::groups(message) } else { Vec::new() };
        let (mut properties, mut required) = (Object::new(), Vec::new());
        for field in message.fields() {
            // Messages that contain one another twice grow beyond measure when they are written out.
            if self.is_hidden(&field) || self.properties > PROPERTIES_MAX {
                continue;
            }
            self.properties += 1;
            let grouped =
                groups.iter().any(|group| group.fields.iter().any(|name| name == field.name()));
            let (mut schema, needed) = self.property(&field, grouped);
            let words = match self.purpose {
                Purpose::Arguments => portable::reduce(&mut schema),
                Purpose::Check | Purpose::Result => Vec::new(),
            };
            // Beside a reference, readers of older drafts and strict model APIs take nothing.
            if !schema.contains_key("$ref") {
                schema.extend(
                    self.description(&field, &groups, &words)
                        .map(|text| ("description".into(), json!(text))),
                );
            }
            if let Some(header) = self.header(&field) {
                schema.insert("x-mcp-header".into(), json!(header));
            }
            if needed {
                required.push(field.name().to_owned());
            }
            properties.insert(field.name().to_owned(), Value::Object(schema));
        }
        let mut schema = into_object(json!({ "type": "object", "properties": properties }));
        if !required.is_empty() && self.detail.described {
            schema.insert("required".into(), json!(required));
        }
        // A result may have more: fields that its service has got since, and extensions.
        if self.is_input() {
            schema.insert("additionalProperties".into(), json!(false));
        }
        if self.purpose == Purpose::Check {
            check_groups(&mut schema, &groups);
        }
        schema
    }

    /// The schema of a field, and whether the field is always there.
    fn property(&mut self, field: &FieldDescriptor, grouped: bool) -> (Object, bool) {
        let mut schema = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let (key, value) =
                    (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
                let mut schema = into_object(json!({ "type": "object" }));
                if self.purpose == Purpose::Check {
                    schema.extend(kind::map_key(&key).map(|keys| ("propertyNames".into(), keys)));
                }
                schema.insert("additionalProperties".into(), Value::Object(self.value(&value)));
                schema
            }
            kind if field.is_list() => {
                into_object(json!({ "type": "array", "items": self.value(&kind) }))
            }
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
        // What is checked is not read by anybody: there each type is written once.
        if self.purpose != Purpose::Check && !self.is_recursive(message) {
            return self.inline(message);
        }
        if !self.definitions.contains_key(name) {
            self.definitions.insert(name.to_owned(), Value::Bool(true));
            self.wanted.push_back(message.clone());
        }
        into_object(json!({ "$ref": format!("#/$defs/{name}") }))
    }

    fn inline(&mut self, message: &MessageDescriptor) -> Object {
        if self.level >= self.detail.levels {
            return into_object(json!({ "type": "object" }));
        }
        self.level += 1;
        let schema = self.object(message);
        self.level -= 1;
        schema
    }

    fn is_recursive(&mut self, message: &MessageDescriptor) -> bool {
        let name = message.full_name();
        if let Some(known) = self.recursive.get(name) {
            return *known;
        }
        let (mut seen, mut wanted) = (HashSet::new(), vec![message.clone()]);
        let mut recursive = false;
        while let Some(within) = wanted.pop() {
            for inner in within.fields().filter_map(|field| field.kind().as_message().cloned()) {
                recursive |= inner == *message;
                if seen.insert(inner.full_name().to_owned()) {
                    wanted.push(inner);
                }
            }
        }
        self.recursive.insert(name.to_owned(), recursive);
        recursive
    }

    /// The field's comment, and in words what model APIs take no keyword for.
    fn description(
        &mut self,
        field: &FieldDescriptor,
        groups: &[Group],
        rules: &[String],
    ) -> Option<String> {
        if self.purpose == Purpose::Check || !self.detail.described {
            return None;
        }
        let mut text = self.comments.of_field(field).unwrap_or_default();
        for group in
            groups.iter().filter(|group| group.fields.iter().any(|name| name == field.name()))
        {
            let names: Vec<_> = group.fields.iter().map(|name| format!("`{name}`")).collect();
            let many = if group.required { "Exactly" } else { "At most" };
            text = format!("{text} {many} one of {} is set.", names.join(", "));
        }
        if self.purpose == Purpose::Arguments && holds_bytes(field) {
            text.push_str(" As base64.");
        }
        if self.purpose == Purpose::Arguments && field.is_map() && !has_text_keys(field) {
            text.push_str(" The keys are whole numbers.");
        }
        if !rules.is_empty() {
            text = format!("{text} Must be {}.", rules.join(", "));
        }
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The header that repeats a plain argument (SEP-2243).
    fn header(&self, field: &FieldDescriptor) -> Option<String> {
        let plain =
            !field.is_list() && !field.is_map() && !matches!(field.kind(), Kind::Message(_));
        let options: Option<mcp::FieldOptions> =
            option(&field.options(), "drawbridge.mcp.v1.field");
        let header = options?.header;
        (plain && self.purpose == Purpose::Arguments && !header.is_empty()).then_some(header)
    }

    fn is_input(&self) -> bool {
        self.purpose != Purpose::Result
    }

    /// Whether clients do not see the field: what the edge fills, or reads, is not theirs.
    fn is_hidden(&self, field: &FieldDescriptor) -> bool {
        let Kind::Message(message) = field.kind() else { return false };
        match self.purpose {
            Purpose::Result => message.full_name().starts_with(CONTRACT),
            Purpose::Arguments | Purpose::Check => message.full_name() == INPUT_RESPONSES,
        }
    }
}

fn has_text_keys(map: &FieldDescriptor) -> bool {
    let entry = map.kind();
    let key = entry.as_message().map(|entry| entry.map_entry_key_field().kind());
    matches!(key, Some(Kind::String | Kind::Bool))
}

fn holds_bytes(field: &FieldDescriptor) -> bool {
    let value = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    match value {
        Kind::Message(message) => message.full_name() == "google.protobuf.BytesValue",
        value => value == Kind::Bytes,
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
            let some: Vec<_> =
                group.fields.iter().map(|field| json!({ "required": [field] })).collect();
            needed.push(json!({ "anyOf": some }));
        }
    }
    excluded.retain(|_, others| !others.is_empty());
    if !excluded.is_empty() {
        let schemas = excluded.into_iter();
        let schemas: Object = schemas
            .map(|(field, others)| (field.to_owned(), json!({ "properties": others })))
            .collect();
        schema.insert("dependentSchemas".into(), Value::Object(schemas));
    }
    if !needed.is_empty() {
        schema.insert("allOf".into(), Value::Array(needed));
    }
}

/// What a text is not, when it does not match a pattern of a derived schema.
pub(crate) fn in_words(pattern: &str) -> Option<&'static str> {
    kind::in_words(pattern).or_else(|| well_known::in_words(pattern))
}

pub(crate) fn into_object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}
