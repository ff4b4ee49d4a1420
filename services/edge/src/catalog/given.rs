//! Schemas that are given as text in a contract, and their compilation.

use std::collections::HashMap;

use jsonschema::Validator;
use rmcp::model::JsonObject;
use serde_json::Value;

/// The longest schema that may be given, in bytes.
const GIVEN_BYTES_MAX: usize = 256 * 1024;
/// The most values that a given schema may have once every reference is written out.
const WRITTEN_OUT_MAX: u64 = 50_000;
/// How deep it may then nest.
const DEPTH_MAX: usize = 256;

/// Why a text is no schema of a tool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("it is longer than {max} bytes", max = GIVEN_BYTES_MAX)]
    TooLong,
    #[error("it is no JSON object")]
    Json(#[source] serde_json::Error),
    #[error("its type is not \"object\"")]
    Type,
    #[error("it refers to {0:?}; a schema may refer to what is in it, as \"#/…\" or \"#anchor\"")]
    Reference(String),
    #[error("it grows beyond measure when its references are written out")]
    TooLarge,
    #[error("{0}")]
    Schema(String),
}

/// Reads a schema that is given as text. None when none is.
pub(crate) fn given_schema(text: &str) -> Result<Option<JsonObject>, SchemaError> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > GIVEN_BYTES_MAX {
        return Err(SchemaError::TooLong);
    }
    let schema: Value = serde_json::from_str(text).map_err(SchemaError::Json)?;
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(SchemaError::Type);
    }
    let mut measure = Measure { schema: &schema, anchors: HashMap::new(), known: HashMap::new() };
    measure.find_anchors(&schema);
    if measure.written_out(&schema, 0)? > WRITTEN_OUT_MAX {
        return Err(SchemaError::TooLarge);
    }
    match schema {
        Value::Object(schema) => Ok(Some(schema)),
        _ => Err(SchemaError::Type),
    }
}

/// Compiles a schema. What it refers to must be in it.
pub(crate) fn compile(schema: &JsonObject) -> Result<Validator, SchemaError> {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .offline()
        .build(&Value::Object(schema.clone()))
        .map_err(|error| SchemaError::Schema(error.to_string()))
}

/// Measures how much there is to check. A few references to references are little text, and take for ever.
struct Measure<'a> {
    schema: &'a Value,
    anchors: HashMap<&'a str, &'a Value>,
    /// What was measured, by reference. None while it is being measured: a schema may contain itself.
    known: HashMap<&'a str, Option<u64>>,
}

impl<'a> Measure<'a> {
    fn find_anchors(&mut self, value: &'a Value) {
        for name in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(name)) = value.get(name) {
                self.anchors.insert(name, value);
            }
        }
        for (_, inner) in schemas_in(value) {
            self.find_anchors(inner);
        }
    }

    fn written_out(&mut self, value: &'a Value, depth: usize) -> Result<u64, SchemaError> {
        if depth > DEPTH_MAX {
            return Err(SchemaError::TooLarge);
        }
        let mut size: u64 = 1;
        for (keyword, inner) in schemas_in(value) {
            let inner_size = match (keyword, inner) {
                ("$ref" | "$dynamicRef", Value::String(reference)) => {
                    self.referred(reference, depth)?
                }
                // What is defined counts where it is referred to.
                ("$defs" | "definitions", _) => 0,
                // A schema with a name of its own would change what references in it mean.
                ("$id", Value::String(id)) if depth > 0 => {
                    return Err(SchemaError::Reference(id.clone()));
                }
                _ => self.written_out(inner, depth + 1)?,
            };
            size = size.saturating_add(inner_size);
        }
        Ok(size)
    }

    fn referred(&mut self, reference: &'a str, depth: usize) -> Result<u64, SchemaError> {
        if let Some(size) = self.known.get(reference) {
            return Ok(size.unwrap_or(1));
        }
        let target = reference.strip_prefix('#').and_then(|target| match target {
            "" => Some(self.schema),
            target if target.starts_with('/') => self.schema.pointer(target),
            anchor => self.anchors.get(anchor).copied(),
        });
        let target = target.ok_or_else(|| SchemaError::Reference(reference.to_owned()))?;
        self.known.insert(reference, None);
        let size = self.written_out(target, depth + 1)?;
        self.known.insert(reference, Some(size));
        Ok(size)
    }
}

/// What is in a schema, by keyword, without what is data.
fn schemas_in(value: &Value) -> Vec<(&str, &Value)> {
    match value {
        Value::Object(object) => {
            let data = ["const", "default", "enum", "examples"];
            let schemas = object.iter().filter(|(keyword, _)| !data.contains(&keyword.as_str()));
            schemas.map(|(keyword, value)| (keyword.as_str(), value)).collect()
        }
        Value::Array(array) => array.iter().map(|value| ("", value)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Validator, SchemaError> {
        compile(&given_schema(text)?.expect("a schema"))
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = read(text).map(drop).expect_err(text).to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn a_given_schema_is_a_bounded_json_object_of_type_object() {
        assert!(given_schema("").unwrap().is_none());
        refused("{", "no JSON object");
        refused("[]", "type");
        refused("{}", "type");
        refused(r#"{ "type": ["object"] }"#, "type");
        refused(
            &format!(r#"{{ "type": "object", "title": "{}" }}"#, "x".repeat(300_000)),
            "longer than",
        );
        refused(r#"{ "type": "object", "required": "a" }"#, "array");
        refused(&format!(r#"{{ "type": "object", "not": {}"#, "[".repeat(1000)), "no JSON object");
    }

    #[test]
    fn a_given_schema_may_hold_all_that_json_schema_has() {
        let validator = read(
            r##"{
              "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
              "properties": { "address": { "$ref": "#/$defs/address" }, "same": { "$ref": "#place" } },
              "$defs": { "address": {
                "$anchor": "place", "type": "object", "properties": { "country": { "type": "string" } },
                "allOf": [{
                  "if": { "properties": { "country": { "const": "US" } } }, "then": { "required": ["zip"] }
                }]
              } }
            }"##,
        );
        let validator = validator.unwrap();
        assert!(validator.is_valid(&json!({ "address": { "country": "US", "zip": 1 } })));
        assert!(!validator.is_valid(&json!({ "address": { "country": "US" } })));
        assert!(!validator.is_valid(&json!({ "same": { "country": 1 } })));
    }

    #[test]
    fn nothing_outside_of_a_given_schema_is_fetched() {
        for reference in
            ["http://127.0.0.1:1/a", "https://a.test/b#/c", "file:///etc/passwd", "other", "#no"]
        {
            refused(&json!({ "type": "object", "$ref": reference }).to_string(), "it refers to");
            let deep =
                json!({ "type": "object", "properties": { "a": { "$dynamicRef": reference } } });
            refused(&deep.to_string(), "it refers to");
        }
        let named = json!({ "type": "object", "$defs": { "a": { "$id": "http://a.test" } }, "$ref": "#/$defs/a" });
        refused(&named.to_string(), "http://a.test");
    }

    #[test]
    fn references_that_grow_beyond_measure_are_refused() {
        let doubling = |next: &str| json!({ "allOf": [{ "$ref": next }, { "$ref": next }] });
        let mut definitions = JsonObject::new();
        for step in 0..40 {
            definitions.insert(format!("d{step}"), doubling(&format!("#/$defs/d{}", step + 1)));
        }
        definitions.insert("d40".into(), json!({ "minProperties": 1 }));
        let bomb = json!({ "type": "object", "$ref": "#/$defs/d0", "$defs": definitions });
        refused(&bomb.to_string(), "beyond measure");

        let mut definitions = JsonObject::new();
        for step in 0..1000 {
            definitions
                .insert(format!("d{step}"), json!({ "$ref": format!("#/$defs/d{}", step + 1) }));
        }
        definitions.insert("d1000".into(), json!({}));
        let chain = json!({ "type": "object", "$ref": "#/$defs/d0", "$defs": definitions });
        refused(&chain.to_string(), "beyond measure");
    }

    #[test]
    fn a_given_schema_may_contain_itself() {
        let tree = json!({ "type": "object", "properties": { "child": { "$ref": "#" } } });
        assert!(!read(&tree.to_string()).unwrap().is_valid(&json!({ "child": { "child": 1 } })));
        let circle = json!({ "type": "object", "$ref": "#" });
        assert!(read(&circle.to_string()).unwrap().is_valid(&json!({})));
    }
}
