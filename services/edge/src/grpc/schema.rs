//! Derives JSON Schema 2020-12 for arguments and results from descriptors.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use drawbridge_contract::option;
use drawbridge_proto::mcp::v1 as mcp;
use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;

pub(crate) use self::{kind::names as enum_names, well_known::wrapped_kind};

mod kind;
mod portable;
mod rules;
#[cfg(test)]
pub(crate) mod tests;
mod well_known;

pub(crate) type SchemaObject = Map<String, Value>;

/// The most message types that one schema may define.
const DEFINITIONS_MAX: usize = 256;
/// The type of the field that the edge sets itself.
pub(crate) const INPUT_RESPONSES: &str = "drawbridge.mcp.v1.InputResponses";
/// The package of types between services and the edge, which the edge translates for clients.
const CONTRACT_PACKAGE: &str = "drawbridge.mcp.v1.";

/// The most properties that one schema may have with all messages inlined. OpenAI allows 5,000.
const PROPERTIES_MAX: usize = 5000;
/// The longest derived schema of a result, in bytes. A longer one describes fewer levels: some
/// clients send it to their models with every request.
const RESULT_BYTES_MAX: usize = 3072;
/// The longest derived schema of a result with descriptions and `required`, in bytes.
const DESCRIBED_RESULT_BYTES_MAX: usize = 1536;
/// The most levels of messages that the schema of a result describes.
const RESULT_LEVELS_MAX: usize = 8;

/// What a schema is for. Arguments and results differ: a result may have unknown enum values, may
/// violate rules, and always has fields without presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Shows the arguments of a tool to clients: with keywords that every model API accepts, and
    /// the rest in descriptions.
    Arguments,
    /// Checks arguments: accepts exactly those that can be converted to a message. Has the keywords
    /// that would cost a model too much to read.
    Check,
    /// Shows the results of a tool to clients.
    Result,
}

/// A message has too many types or fields below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooLarge {
    /// Too many types.
    #[error("a message has more than {max} types below it", max = DEFINITIONS_MAX)]
    Types,
    /// Too many fields.
    #[error("a message has more than {max} fields, including nested ones", max = PROPERTIES_MAX)]
    Properties,
}

/// The level of detail of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Detail {
    /// Whether it has descriptions and `required`.
    is_described: bool,
    /// How many levels of messages it describes. Deeper messages are plain objects.
    levels: usize,
}

impl Detail {
    const ALL: Self = Self { is_described: true, levels: usize::MAX };
}

/// The schema of a message as a top-level object. It has no `oneOf`, `anyOf` or `allOf` at the top,
/// which model APIs reject. For [`Purpose::Result`] it has as much detail as fits
/// [`RESULT_BYTES_MAX`].
pub(crate) fn object_schema(
    message: &MessageDescriptor,
    purpose: Purpose,
    comments: &mut Comments,
) -> Result<SchemaObject, TooLarge> {
    if purpose != Purpose::Result {
        return write(message, purpose, Detail::ALL, comments);
    }
    let described =
        (Detail { is_described: true, levels: RESULT_LEVELS_MAX }, DESCRIBED_RESULT_BYTES_MAX);
    let levels = (1..=RESULT_LEVELS_MAX).rev();
    let plain = levels.map(|levels| (Detail { is_described: false, levels }, RESULT_BYTES_MAX));
    let mut written = Err(TooLarge::Properties);
    for (detail, bytes_max) in std::iter::once(described).chain(plain) {
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
) -> Result<SchemaObject, TooLarge> {
    let mut writer = SchemaWriter {
        purpose,
        detail,
        level: 1,
        properties: 0,
        comments,
        recursive: HashMap::new(),
        definitions: BTreeMap::new(),
        undefined: VecDeque::new(),
    };
    let mut schema = writer.object(message);
    while let Some(message) = writer.undefined.pop_front() {
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

struct SchemaWriter<'a> {
    purpose: Purpose,
    detail: Detail,
    /// The level of the current message. The first is 1.
    level: usize,
    /// The number of properties so far.
    properties: usize,
    comments: &'a mut Comments,
    /// Whether a message contains itself, by full name.
    recursive: HashMap<String, bool>,
    /// By full name. A message has an empty definition from its first reference on.
    definitions: BTreeMap<String, Value>,
    /// Messages with a reference and without a definition.
    undefined: VecDeque<MessageDescriptor>,
}

/// Fields of which at most one may be set.
pub(crate) struct Group {
    pub(crate) fields: Vec<String>,
    /// Whether one of them must be set.
    pub(crate) required: bool,
}

impl SchemaWriter<'_> {
    /// The definition of a referenced message, with the description that references lack.
    fn definition(&mut self, message: &MessageDescriptor) -> SchemaObject {
        let mut schema = self.object(message);
        if self.purpose == Purpose::Arguments
            && let Some(comment) = self.comments.of(&message.parent_file(), message.path())
        {
            schema.insert("description".into(), json!(comment));
        }
        schema
    }

    fn object(&mut self, message: &MessageDescriptor) -> SchemaObject {
        let groups = if self.is_input() { rules::groups(message) } else { Vec::new() };
        let (mut properties, mut required) = (SchemaObject::new(), Vec::new());
        for field in message.fields() {
            // Inlined messages can grow exponentially.
            if self.is_hidden(&field) || self.properties > PROPERTIES_MAX {
                continue;
            }
            self.properties += 1;
            let is_grouped =
                groups.iter().any(|group| group.fields.iter().any(|name| name == field.name()));
            let (mut schema, is_required) = self.property(&field, is_grouped);
            let words = match self.purpose {
                Purpose::Arguments => portable::reduce(&mut schema),
                Purpose::Check | Purpose::Result => Vec::new(),
            };
            // Older drafts and strict model APIs accept no keyword next to `$ref`.
            if !schema.contains_key("$ref") {
                schema.extend(
                    self.description(&field, &groups, &words)
                        .map(|text| ("description".into(), json!(text))),
                );
            }
            if let Some(header) = self.header(&field) {
                schema.insert("x-mcp-header".into(), json!(header));
            }
            if is_required {
                required.push(field.name().to_owned());
            }
            properties.insert(field.name().to_owned(), Value::Object(schema));
        }
        let mut schema = into_object(json!({ "type": "object", "properties": properties }));
        if !required.is_empty() && self.detail.is_described {
            schema.insert("required".into(), json!(required));
        }
        // A result may have unknown fields: of a newer version of the service, and extensions.
        if self.is_input() {
            schema.insert("additionalProperties".into(), json!(false));
        }
        if self.purpose == Purpose::Check {
            check_groups(&mut schema, &groups);
        }
        schema
    }

    /// The schema of a field, and whether the field is required.
    fn property(&mut self, field: &FieldDescriptor, is_grouped: bool) -> (SchemaObject, bool) {
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
        let is_required = rules::constrain(&mut schema, field, is_grouped);
        (schema, is_required || field.cardinality() == Cardinality::Required)
    }

    fn value(&mut self, kind: &Kind) -> SchemaObject {
        let Kind::Message(message) = kind else { return kind::schema(kind, self.purpose) };
        let name = message.full_name();
        if let Some(schema) = well_known::schema(name, self.purpose) {
            return schema;
        }
        // No model reads the schema for checks, so it need not inline types.
        if self.purpose != Purpose::Check && !self.is_recursive(message) {
            return self.inline(message);
        }
        if !self.definitions.contains_key(name) {
            self.definitions.insert(name.to_owned(), Value::Bool(true));
            self.undefined.push_back(message.clone());
        }
        into_object(json!({ "$ref": format!("#/$defs/{name}") }))
    }

    fn inline(&mut self, message: &MessageDescriptor) -> SchemaObject {
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
        let (mut seen, mut pending) = (HashSet::new(), vec![message.clone()]);
        let mut is_recursive = false;
        while let Some(within) = pending.pop() {
            for inner in within.fields().filter_map(|field| field.kind().as_message().cloned()) {
                is_recursive |= inner == *message;
                if seen.insert(inner.full_name().to_owned()) {
                    pending.push(inner);
                }
            }
        }
        self.recursive.insert(name.to_owned(), is_recursive);
        is_recursive
    }

    /// The field's comment, and a description of rules that have no portable keyword.
    fn description(
        &mut self,
        field: &FieldDescriptor,
        groups: &[Group],
        rules: &[String],
    ) -> Option<String> {
        if self.purpose == Purpose::Check || !self.detail.is_described {
            return None;
        }
        let mut text = self.comments.of_field(field).unwrap_or_default();
        for group in
            groups.iter().filter(|group| group.fields.iter().any(|name| name == field.name()))
        {
            let names: Vec<_> = group.fields.iter().map(|name| format!("`{name}`")).collect();
            let how_many = if group.required { "Exactly" } else { "At most" };
            text = format!("{text} {how_many} one of {} is set.", names.join(", "));
        }
        if self.purpose == Purpose::Arguments && has_bytes(field) {
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

    /// The HTTP header that repeats a scalar argument (SEP-2243).
    fn header(&self, field: &FieldDescriptor) -> Option<String> {
        let is_scalar =
            !field.is_list() && !field.is_map() && !matches!(field.kind(), Kind::Message(_));
        let options: Option<mcp::FieldOptions> =
            option(&field.options(), "drawbridge.mcp.v1.field");
        let header = options?.header;
        (is_scalar && self.purpose == Purpose::Arguments && !header.is_empty()).then_some(header)
    }

    fn is_input(&self) -> bool {
        self.purpose != Purpose::Result
    }

    /// Whether the field is hidden from clients because the edge sets or reads it.
    fn is_hidden(&self, field: &FieldDescriptor) -> bool {
        let Kind::Message(message) = field.kind() else { return false };
        match self.purpose {
            Purpose::Result => message.full_name().starts_with(CONTRACT_PACKAGE),
            Purpose::Arguments | Purpose::Check => message.full_name() == INPUT_RESPONSES,
        }
    }
}

fn has_text_keys(map: &FieldDescriptor) -> bool {
    let entry = map.kind();
    let key = entry.as_message().map(|entry| entry.map_entry_key_field().kind());
    matches!(key, Some(Kind::String | Kind::Bool))
}

fn has_bytes(field: &FieldDescriptor) -> bool {
    let value = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    match value {
        Kind::Message(message) => message.full_name() == "google.protobuf.BytesValue",
        value => value == Kind::Bytes,
    }
}

/// Adds keywords by which at most one field of each group may be set, and exactly one of a required
/// group.
fn check_groups(schema: &mut SchemaObject, groups: &[Group]) {
    let mut excluded: BTreeMap<&str, SchemaObject> = BTreeMap::new();
    let mut required = Vec::new();
    for group in groups {
        for field in &group.fields {
            let others = group.fields.iter().filter(|other| *other != field);
            let others = others.map(|other| (other.clone(), Value::Bool(false)));
            excluded.entry(field).or_default().extend(others);
        }
        if group.required {
            let some: Vec<_> =
                group.fields.iter().map(|field| json!({ "required": [field] })).collect();
            required.push(json!({ "anyOf": some }));
        }
    }
    excluded.retain(|_, others| !others.is_empty());
    if !excluded.is_empty() {
        let schemas = excluded.into_iter();
        let schemas: SchemaObject = schemas
            .map(|(field, others)| (field.to_owned(), json!({ "properties": others })))
            .collect();
        schema.insert("dependentSchemas".into(), Value::Object(schemas));
    }
    if !required.is_empty() {
        schema.insert("allOf".into(), Value::Array(required));
    }
}

/// Describes a mismatch with a pattern of a derived schema.
pub(crate) fn describe_mismatch(pattern: &str) -> Option<&'static str> {
    kind::describe_mismatch(pattern).or_else(|| well_known::describe_mismatch(pattern))
}

pub(crate) fn into_object(value: Value) -> SchemaObject {
    match value {
        Value::Object(object) => object,
        _ => SchemaObject::new(),
    }
}
