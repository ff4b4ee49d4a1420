//! Schemas given as text in a contract or the config file: parsing, bounds, compilation.

use std::collections::HashMap;

use jsonschema::Validator;
use rmcp::model::JsonObject;
use serde_json::Value;

/// The longest schema text, in bytes.
const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// The most values in a schema after every reference is expanded.
const EXPANDED_VALUES_MAX: u64 = 50_000;
/// The deepest nesting after the expansion.
const DEPTH_MAX: usize = 256;

/// Why a text is not a valid schema of a tool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("it exceeds {max} bytes", max = SCHEMA_BYTES_MAX)]
    TooLong,
    #[error("it is not a JSON object")]
    Json(#[source] serde_json::Error),
    #[error("its type is not \"object\"")]
    Type,
    #[error(
        "invalid reference {0:?} (expected one within the schema, e.g. \"#/$defs/a\" \
         or \"#anchor\")"
    )]
    Reference(String),
    #[error("it is too large after its references are expanded")]
    TooLarge,
    #[error("{0}")]
    Schema(String),
}

/// Parses a schema. `None` for an empty text.
pub(crate) fn parse_schema(text: &str) -> Result<Option<JsonObject>, SchemaError> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > SCHEMA_BYTES_MAX {
        return Err(SchemaError::TooLong);
    }
    let schema: Value = serde_json::from_str(text).map_err(SchemaError::Json)?;
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(SchemaError::Type);
    }
    let mut measure =
        SchemaMeasure { schema: &schema, anchors: HashMap::new(), sizes: HashMap::new() };
    measure.find_anchors(&schema);
    if measure.expanded_size(&schema, 0)? > EXPANDED_VALUES_MAX {
        return Err(SchemaError::TooLarge);
    }
    match schema {
        Value::Object(schema) => Ok(Some(schema)),
        _ => Err(SchemaError::Type),
    }
}

/// Compiles a schema. All references must be within it.
pub(crate) fn compile(schema: &JsonObject) -> Result<Validator, SchemaError> {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .offline()
        .build(&Value::Object(schema.clone()))
        .map_err(|error| SchemaError::Schema(error.to_string()))
}

/// Measures the expanded size of a schema. A short text with nested references can take forever to
/// evaluate.
struct SchemaMeasure<'a> {
    schema: &'a Value,
    anchors: HashMap<&'a str, &'a Value>,
    /// Expanded sizes by reference. `None` while one is being measured: a schema may contain
    /// itself.
    sizes: HashMap<&'a str, Option<u64>>,
}

impl<'a> SchemaMeasure<'a> {
    fn find_anchors(&mut self, value: &'a Value) {
        for name in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(name)) = value.get(name) {
                self.anchors.insert(name, value);
            }
        }
        for (_, inner) in subschemas(value) {
            self.find_anchors(inner);
        }
    }

    fn expanded_size(&mut self, value: &'a Value, depth: usize) -> Result<u64, SchemaError> {
        if depth > DEPTH_MAX {
            return Err(SchemaError::TooLarge);
        }
        let mut size: u64 = 1;
        for (keyword, inner) in subschemas(value) {
            let inner_size = match (keyword, inner) {
                ("$ref" | "$dynamicRef", Value::String(reference)) => {
                    self.size_of_reference(reference, depth)?
                }
                // A definition counts where it is referenced.
                ("$defs" | "definitions", _) => 0,
                // A nested `$id` would change the base of the references within it.
                ("$id", Value::String(id)) if depth > 0 => {
                    return Err(SchemaError::Reference(id.clone()));
                }
                _ => self.expanded_size(inner, depth + 1)?,
            };
            size = size.saturating_add(inner_size);
        }
        Ok(size)
    }

    fn size_of_reference(&mut self, reference: &'a str, depth: usize) -> Result<u64, SchemaError> {
        if let Some(size) = self.sizes.get(reference) {
            return Ok(size.unwrap_or(1));
        }
        let target = reference.strip_prefix('#').and_then(|target| match target {
            "" => Some(self.schema),
            target if target.starts_with('/') => self.schema.pointer(target),
            anchor => self.anchors.get(anchor).copied(),
        });
        let target = target.ok_or_else(|| SchemaError::Reference(reference.to_owned()))?;
        self.sizes.insert(reference, None);
        let size = self.expanded_size(target, depth + 1)?;
        self.sizes.insert(reference, Some(size));
        Ok(size)
    }
}

/// The values in a schema by keyword, without those that are data.
fn subschemas(value: &Value) -> Vec<(&str, &Value)> {
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
        compile(&parse_schema(text)?.expect("a schema"))
    }

    #[track_caller]
    fn check_rejected(text: &str, reason: &str) {
        let error = read(text).map(drop).expect_err(text).to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn a_schema_text_is_a_bounded_json_object_of_type_object() {
        assert!(parse_schema("").unwrap().is_none());
        check_rejected("{", "not a JSON object");
        check_rejected("[]", "type");
        check_rejected("{}", "type");
        check_rejected(r#"{ "type": ["object"] }"#, "type");
        check_rejected(
            &format!(r#"{{ "type": "object", "title": "{}" }}"#, "x".repeat(300_000)),
            "exceeds",
        );
        check_rejected(r#"{ "type": "object", "required": "a" }"#, "array");
        check_rejected(
            &format!(r#"{{ "type": "object", "not": {}"#, "[".repeat(1000)),
            "not a JSON object",
        );
    }

    #[test]
    fn a_schema_text_may_use_all_of_json_schema() {
        let validator = read(
            r##"{
              "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
              "properties": {
                "address": { "$ref": "#/$defs/address" }, "same": { "$ref": "#place" }
              },
              "$defs": { "address": {
                "$anchor": "place", "type": "object",
                "properties": { "country": { "type": "string" } },
                "allOf": [{
                  "if": { "properties": { "country": { "const": "US" } } },
                  "then": { "required": ["zip"] }
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
    fn no_reference_outside_of_a_schema_text_is_fetched() {
        for reference in
            ["http://127.0.0.1:1/a", "https://a.test/b#/c", "file:///etc/passwd", "other", "#no"]
        {
            check_rejected(
                &json!({ "type": "object", "$ref": reference }).to_string(),
                "invalid reference",
            );
            let deep =
                json!({ "type": "object", "properties": { "a": { "$dynamicRef": reference } } });
            check_rejected(&deep.to_string(), "invalid reference");
        }
        let named = json!({
            "type": "object", "$defs": { "a": { "$id": "http://a.test" } }, "$ref": "#/$defs/a"
        });
        check_rejected(&named.to_string(), "http://a.test");
    }

    #[test]
    fn references_that_expand_exponentially_are_rejected() {
        let doubling = |next: &str| json!({ "allOf": [{ "$ref": next }, { "$ref": next }] });
        let mut definitions = JsonObject::new();
        for step in 0..40 {
            definitions.insert(format!("d{step}"), doubling(&format!("#/$defs/d{}", step + 1)));
        }
        definitions.insert("d40".into(), json!({ "minProperties": 1 }));
        let bomb = json!({ "type": "object", "$ref": "#/$defs/d0", "$defs": definitions });
        check_rejected(&bomb.to_string(), "too large");

        let mut definitions = JsonObject::new();
        for step in 0..1000 {
            definitions
                .insert(format!("d{step}"), json!({ "$ref": format!("#/$defs/d{}", step + 1) }));
        }
        definitions.insert("d1000".into(), json!({}));
        let chain = json!({ "type": "object", "$ref": "#/$defs/d0", "$defs": definitions });
        check_rejected(&chain.to_string(), "too large");
    }

    #[test]
    fn a_schema_text_may_contain_itself() {
        let tree = json!({ "type": "object", "properties": { "child": { "$ref": "#" } } });
        assert!(!read(&tree.to_string()).unwrap().is_valid(&json!({ "child": { "child": 1 } })));
        let cycle = json!({ "type": "object", "$ref": "#" });
        assert!(read(&cycle.to_string()).unwrap().is_valid(&json!({})));
    }
}
