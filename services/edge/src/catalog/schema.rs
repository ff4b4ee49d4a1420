//! JSON Schema 2020-12 from descriptors: what a client may send, and what comes back.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;

type Object = Map<String, Value>;

/// How deep messages may nest. A deeper contract is a mistake.
const DEPTH_MAX: usize = 64;

/// The schema of a message as a top-level object, without `oneOf`, `anyOf` or `allOf`: model APIs refuse
/// them there.
pub(crate) fn object_schema(message: &MessageDescriptor, comments: &mut Comments) -> Object {
    let mut writer = Writer { comments, definitions: Object::new() };
    let mut schema = writer.object(message, 0);
    if !writer.definitions.is_empty() {
        schema.insert("$defs".into(), Value::Object(writer.definitions));
    }
    schema
}

struct Writer<'a> {
    comments: &'a mut Comments,
    definitions: Object,
}

impl Writer<'_> {
    fn object(&mut self, message: &MessageDescriptor, depth: usize) -> Object {
        let properties: Object = message
            .fields()
            .map(|field| (field.name().to_owned(), Value::Object(self.property(&field, depth))))
            .collect();
        let mut schema = Object::new();
        schema.insert("type".into(), json!("object"));
        schema.insert("properties".into(), Value::Object(properties));
        schema.insert("additionalProperties".into(), json!(false));
        schema
    }

    fn property(&mut self, field: &FieldDescriptor, depth: usize) -> Object {
        let mut schema = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = self.value(&entry.map_entry_value_field().kind(), depth);
                into_object(json!({ "type": "object", "additionalProperties": values }))
            }
            kind if field.is_list() => {
                into_object(json!({ "type": "array", "items": self.value(&kind, depth) }))
            }
            kind => self.value(&kind, depth),
        };
        let mut description = self.comments.of(&field.parent_file(), field.path()).unwrap_or_default();
        if let Some(oneof) = field.containing_oneof()
            && !oneof.is_synthetic()
        {
            let names: Vec<_> = oneof.fields().map(|field| format!("`{}`", field.name())).collect();
            description = format!("{description} At most one of {} is set.", names.join(", "));
        }
        if !description.is_empty() {
            schema.insert("description".into(), json!(description.trim()));
        }
        schema
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Object {
        let schema = match kind {
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Float | Kind::Double => json!({ "type": "number" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX })
            }
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({ "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX })
            }
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
            Kind::Enum(descriptor) => json!({ "type": "string", "enum": names(descriptor) }),
            Kind::Message(message) => return self.message(message, depth),
        };
        into_object(schema)
    }

    fn message(&mut self, message: &MessageDescriptor, depth: usize) -> Object {
        if let Some(schema) = well_known(message.full_name()) {
            return into_object(schema);
        }
        let name = message.full_name();
        if !self.definitions.contains_key(name) && depth < DEPTH_MAX {
            // Held before it is written, so that a message may contain itself.
            self.definitions.insert(name.to_owned(), Value::Bool(true));
            let schema = self.object(message, depth + 1);
            self.definitions.insert(name.to_owned(), Value::Object(schema));
        }
        into_object(json!({ "$ref": format!("#/$defs/{name}") }))
    }
}

/// The names of an enum's values, without the one that means "not said".
fn names(descriptor: &EnumDescriptor) -> Vec<String> {
    descriptor
        .values()
        .map(|value| value.name().to_owned())
        .filter(|name| !name.ends_with("_UNSPECIFIED"))
        .collect()
}

/// The JSON forms of the well-known types (protobuf's ProtoJSON mapping).
fn well_known(full_name: &str) -> Option<Value> {
    Some(match full_name.strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({ "type": "string", "format": "date-time" }),
        "Duration" => json!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$" }),
        "FieldMask" => json!({ "type": "string" }),
        "Empty" => json!({ "type": "object", "additionalProperties": false }),
        "Struct" => json!({ "type": "object" }),
        "ListValue" => json!({ "type": "array" }),
        "Value" => json!({}),
        "Any" => json!({ "type": "object", "properties": { "@type": { "type": "string" } } }),
        "BoolValue" => json!({ "type": ["boolean", "null"] }),
        "StringValue" => json!({ "type": ["string", "null"] }),
        "BytesValue" => json!({ "type": ["string", "null"], "contentEncoding": "base64" }),
        "FloatValue" | "DoubleValue" => json!({ "type": ["number", "null"] }),
        "Int32Value" | "UInt32Value" | "Int64Value" | "UInt64Value" => json!({ "type": ["integer", "null"] }),
        _ => return None,
    })
}

fn into_object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(message: &str) -> String {
        let pool = drawbridge_sdk::reflection::built_in().unwrap();
        let message = pool.get_message_by_name(message).unwrap();
        serde_json::to_string_pretty(&object_schema(&message, &mut Comments::default())).unwrap()
    }

    #[test]
    fn comments_become_descriptions_and_types_become_json_types() {
        insta::assert_snapshot!(schema("drawbridge.code.v1.ListFilesRequest"), @r#"
    {
      "type": "object",
      "properties": {
        "glob": {
          "type": "string",
          "description": "Only files whose path matches this glob, for example `**/*.rs`."
        },
        "path": {
          "type": "string",
          "description": "Only files under this folder, relative to the tree's root."
        },
        "max_results": {
          "type": "integer",
          "minimum": 0,
          "maximum": 4294967295,
          "description": "The most files to return, 1 to 10000. Default: 1000."
        }
      },
      "additionalProperties": false
    }
    "#);
    }

    #[test]
    fn a_nested_message_is_a_definition_and_a_oneof_says_so_in_words() {
        let schema: Value = serde_json::from_str(&schema("drawbridge.mcp.v1.ContentBlock")).unwrap();
        insta::assert_json_snapshot!(schema["properties"]["text"], @r##"
    {
      "$ref": "#/$defs/drawbridge.mcp.v1.TextContent",
      "description": "Text. At most one of `text`, `image`, `audio`, `resource`, `resource_link` is set."
    }
    "##);
        insta::assert_json_snapshot!(schema["$defs"]["drawbridge.mcp.v1.Annotations"]["properties"], @r#"
    {
      "audience": {
        "type": "array",
        "items": {
          "type": "string",
          "enum": [
            "AUDIENCE_USER",
            "AUDIENCE_ASSISTANT"
          ]
        },
        "description": "For whom it is."
      },
      "priority": {
        "type": "number",
        "description": "How important it is, 0 to 1."
      }
    }
    "#);
        assert_eq!(schema.get("oneOf"), None);
    }

    #[test]
    fn a_message_may_contain_itself() {
        let schema: Value = serde_json::from_str(&schema("google.protobuf.DescriptorProto")).unwrap();
        let own = &schema["$defs"]["google.protobuf.DescriptorProto"]["properties"]["nested_type"];
        assert_eq!(own["items"]["$ref"], "#/$defs/google.protobuf.DescriptorProto");
    }
}
