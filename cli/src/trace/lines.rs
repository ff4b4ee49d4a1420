//! Log lines for people.

use drawbridge_mesh::calls::RecordedLine;
use serde_json::Value;

/// Fields that have a place of their own, or that the reader knows.
const HIDDEN: [&str; 6] = ["timestamp", "level", "target", "threadName", "message", "trace_id"];

/// A line: time, level, service, message, and its other fields.
pub(super) fn show(line: &RecordedLine) -> String {
    let field = |name: &str| line.fields.get(name).map(text).unwrap_or_default();
    let timestamp = field("timestamp");
    let time = timestamp.split_once('T').map_or(timestamp.as_str(), |(_, time)| time);
    let time: String = time.chars().take(12).collect();
    let mut shown = format!("{time} {:5} {}: {}", field("level"), line.service, field("message"));
    for (name, value) in &line.fields {
        if !HIDDEN.contains(&name.as_str()) {
            shown += &format!(" {name}={}", text(value));
        }
    }
    // A value must not move the cursor or change colors.
    shown.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

/// A value without quotes; a list without brackets.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
