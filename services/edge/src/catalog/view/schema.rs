//! Schemas without what clients cannot say.

use rmcp::model::JsonObject;
use serde_json::Value;

use super::ViewError;

/// Keywords that say nothing about single arguments, or were looked at.
const LOOKED_AT: [&str; 10] = [
    "$defs",
    "$id",
    "$schema",
    "additionalProperties",
    "definitions",
    "description",
    "properties",
    "required",
    "title",
    "type",
];

/// Takes an argument out of a schema. When clients will see the schema, nothing in it may speak of the argument.
pub(super) fn remove(schema: &mut JsonObject, name: &str, shown: bool) -> Result<(), ViewError> {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    if properties.and_then(|properties| properties.shift_remove(name)).is_none() {
        return Err(ViewError::NoArgument(name.to_owned()));
    }
    not_required(schema, name);
    if shown && mentions(schema, name) {
        Err(ViewError::Mentioned(name.to_owned()))
    } else {
        Ok(())
    }
}

/// Says what holds where a client says nothing.
pub(super) fn set_default(
    schema: &mut JsonObject,
    name: &str,
    value: &Value,
) -> Result<(), ViewError> {
    let property = schema.get_mut("properties").and_then(|properties| properties.get_mut(name));
    let property = property.and_then(Value::as_object_mut);
    let property = property.ok_or_else(|| ViewError::NoArgument(name.to_owned()))?;
    property.insert("default".to_owned(), value.clone());
    not_required(schema, name);
    Ok(())
}

fn not_required(schema: &mut JsonObject, name: &str) {
    let Some(Value::Array(required)) = schema.get_mut("required") else { return };
    required.retain(|required| required != name);
    if required.is_empty() {
        schema.shift_remove("required");
    }
}

/// Whether something besides the argument's own schema is about it: a condition, or a description of another.
fn mentions(schema: &JsonObject, name: &str) -> bool {
    let elsewhere = schema.iter().filter(|(keyword, _)| !LOOKED_AT.contains(&keyword.as_str()));
    let quoted = format!("`{name}`");
    let says = |property: &Value| {
        property
            .get("description")
            .and_then(Value::as_str)
            .is_some_and(|text| text.contains(&quoted))
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    elsewhere.into_iter().any(|(_, value)| names(value, name))
        || properties.into_iter().flat_map(JsonObject::values).any(says)
}

fn names(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name,
        Value::Array(values) => values.iter().any(|value| names(value, name)),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key == name || names(value, name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A schema of these arguments, of which some are required and some are spoken of by others.
    fn schema(arguments: &[(String, bool)], condition: Option<&str>) -> JsonObject {
        let properties: JsonObject = arguments
            .iter()
            .map(|(name, _)| {
                (name.clone(), json!({ "type": "string", "description": "Says what." }))
            })
            .collect();
        let required: Vec<_> =
            arguments.iter().filter(|(_, required)| *required).map(|(name, _)| name).collect();
        let mut schema =
            json!({ "type": "object", "properties": properties, "required": required });
        if let Some(name) = condition {
            schema["dependentRequired"] = json!({ "other": [name] });
        }
        serde_json::from_value(schema).unwrap()
    }

    proptest! {
        #[test]
        fn a_schema_never_mentions_what_was_taken_out(
            arguments in prop::collection::btree_map("[a-d]{1,2}", any::<bool>(), 1..6),
            at in any::<prop::sample::Index>(),
            conditional in any::<bool>(),
        ) {
            let arguments: Vec<_> = arguments.into_iter().collect();
            let name = &at.get(&arguments).0;
            let mut schema = schema(&arguments, conditional.then_some(name.as_str()));
            match remove(&mut schema, name, true) {
                Ok(()) => {
                    let text = Value::Object(schema.clone()).to_string();
                    prop_assert!(!text.contains(&format!("\"{name}\"")), "{text}");
                    prop_assert_eq!(schema["properties"].as_object().unwrap().len(), arguments.len() - 1);
                }
                Err(ViewError::Mentioned(_)) => prop_assert!(conditional),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn what_others_say_of_an_argument_is_seen() {
        let mut schema = schema(&[("a".to_owned(), true), ("b".to_owned(), false)], None);
        schema["properties"]["b"]["description"] = json!("At most one of `a`, `b` is set.");
        assert!(matches!(remove(&mut schema.clone(), "a", true), Err(ViewError::Mentioned(_))));
        assert!(remove(&mut schema.clone(), "a", false).is_ok());
        assert!(matches!(remove(&mut schema, "c", true), Err(ViewError::NoArgument(_))));
    }

    #[test]
    fn a_default_is_told_and_need_not_be_said() {
        let mut schema = schema(&[("a".to_owned(), true)], None);
        set_default(&mut schema, "a", &json!("x")).unwrap();
        assert_eq!(schema["properties"]["a"]["default"], "x");
        assert!(!schema.contains_key("required"));
        assert!(matches!(set_default(&mut schema, "b", &json!(1)), Err(ViewError::NoArgument(_))));
    }
}
