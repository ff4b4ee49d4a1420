//! The events of the audit log, and the administrative acts in it.

use drawbridge_audit::event::{AdminAction, schemas};
use serde_json::Value;

use super::table;

pub(super) fn parts() -> impl Iterator<Item = (String, String)> {
    let sections = schemas().map(|(name, schema)| {
        let schema = schema.to_value();
        let about = schema["description"].as_str().unwrap_or_default();
        let mut rows = Vec::new();
        collect(&schema, &schema, &mut rows);
        format!("### `{name}`\n\n{about}\n\n{}", table(["member", "meaning"], rows))
    });
    let acts = AdminAction::ALL.map(|act| {
        let [services, about, value] = act.about();
        [format!("`{}`", act.name()), services.to_owned(), about.to_owned(), value.to_owned()]
    });
    let acts = table(["action", "services", "when", "value"], acts);
    let events = ("audit events".to_owned(), sections.join("\n"));
    [events, ("audit actions".to_owned(), acts)].into_iter()
}

/// The members of an object, with those of the types that are a part of it.
fn collect(schema: &Value, root: &Value, rows: &mut Vec<[String; 2]>) {
    if let Some(path) = schema["$ref"].as_str() {
        let part = root.pointer(path.trim_start_matches('#')).unwrap_or(&Value::Null);
        collect(part, root, rows);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let about = property["description"].as_str().unwrap_or_default();
        rows.push([format!("`{name}`"), about.trim_end_matches('.').to_owned()]);
    }
    for parts in ["allOf", "anyOf"] {
        for part in schema[parts].as_array().into_iter().flatten() {
            collect(part, root, rows);
        }
    }
}
