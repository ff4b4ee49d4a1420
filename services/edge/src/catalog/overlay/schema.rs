//! Removes hidden arguments from schemas and sets defaults.

use rmcp::model::JsonObject;
use serde_json::Value;

use super::OverlayProblem;

/// Keywords that constrain no single argument, or that are checked separately.
const SKIPPED: [&str; 10] = [
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

/// Removes an argument from a schema. In a schema that clients will see, no other part may mention
/// the argument.
pub(super) fn remove(
    schema: &mut JsonObject,
    name: &str,
    is_shown: bool,
) -> Result<(), OverlayProblem> {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    if properties.and_then(|properties| properties.shift_remove(name)).is_none() {
        return Err(OverlayProblem::NoArgument(name.to_owned()));
    }
    make_optional(schema, name);
    if is_shown && mentions(schema, name) {
        Err(OverlayProblem::Mentioned(name.to_owned()))
    } else {
        Ok(())
    }
}

/// Sets the default of an argument, which becomes optional.
pub(super) fn set_default(
    schema: &mut JsonObject,
    name: &str,
    value: &Value,
) -> Result<(), OverlayProblem> {
    let property = schema.get_mut("properties").and_then(|properties| properties.get_mut(name));
    let property = property.and_then(Value::as_object_mut);
    let property = property.ok_or_else(|| OverlayProblem::NoArgument(name.to_owned()))?;
    property.insert("default".to_owned(), value.clone());
    make_optional(schema, name);
    Ok(())
}

fn make_optional(schema: &mut JsonObject, name: &str) {
    let Some(Value::Array(required)) = schema.get_mut("required") else { return };
    required.retain(|required| required != name);
    if required.is_empty() {
        schema.shift_remove("required");
    }
}

/// Whether a part of the schema besides the argument's own mentions it: a condition, or the
/// description of another argument.
fn mentions(schema: &JsonObject, name: &str) -> bool {
    let elsewhere = schema.iter().filter(|(keyword, _)| !SKIPPED.contains(&keyword.as_str()));
    let quoted = format!("`{name}`");
    let describes = |property: &Value| {
        property
            .get("description")
            .and_then(Value::as_str)
            .is_some_and(|text| text.contains(&quoted))
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    elsewhere.into_iter().any(|(_, value)| contains_name(value, name))
        || properties.into_iter().flat_map(JsonObject::values).any(describes)
}

fn contains_name(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name,
        Value::Array(values) => values.iter().any(|value| contains_name(value, name)),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key == name || contains_name(value, name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A schema of these arguments, some of them required, one of them mentioned in a condition.
    fn schema(arguments: &[(String, bool)], condition: Option<&str>) -> JsonObject {
        let properties: JsonObject = arguments
            .iter()
            .map(|(name, _)| (name.clone(), json!({ "type": "string", "description": "A text." })))
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
        fn a_schema_never_mentions_a_removed_argument(
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
                    let properties = schema["properties"].as_object().unwrap();
                    prop_assert_eq!(properties.len(), arguments.len() - 1);
                }
                Err(OverlayProblem::Mentioned(_)) => prop_assert!(conditional),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn a_description_that_mentions_a_removed_argument_is_an_error() {
        let mut schema = schema(&[("a".to_owned(), true), ("b".to_owned(), false)], None);
        schema["properties"]["b"]["description"] = json!("At most one of `a`, `b` is set.");
        assert!(matches!(
            remove(&mut schema.clone(), "a", true),
            Err(OverlayProblem::Mentioned(_))
        ));
        assert!(remove(&mut schema.clone(), "a", false).is_ok());
        assert!(matches!(remove(&mut schema, "c", true), Err(OverlayProblem::NoArgument(_))));
    }

    #[test]
    fn an_argument_with_a_default_is_optional() {
        let mut schema = schema(&[("a".to_owned(), true)], None);
        set_default(&mut schema, "a", &json!("x")).unwrap();
        assert_eq!(schema["properties"]["a"]["default"], "x");
        assert!(!schema.contains_key("required"));
        assert!(matches!(
            set_default(&mut schema, "b", &json!(1)),
            Err(OverlayProblem::NoArgument(_))
        ));
    }
}
