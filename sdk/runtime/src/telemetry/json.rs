//! Log lines as JSON: one object per line, each key once.

use std::{cell::RefCell, fmt, io::Write as _, sync::Arc};

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::Context,
    registry::LookupSpan,
};

/// The fields of spans that log lines have, as the innermost span has them.
const SPAN_FIELDS: [&str; 4] = ["request_id", "caller_request_id", "trace_id", "peer"];
/// A field with this suffix has JSON as its text, which becomes a part of the line.
const JSON_SUFFIX: &str = "[]";

/// Formats events as lines of JSON.
pub(super) struct JsonLines<W> {
    pub(super) writer: W,
    /// In a process with several services, the threads have the services' names.
    pub(super) thread_names: bool,
}

/// What log lines have of a span and its parents.
#[derive(Clone, Default)]
struct LogContext([Option<Arc<str>>; SPAN_FIELDS.len()]);

/// A list as a field of a log line, whose name ends in `[]`: `"policy_ids[]" = %JsonList(ids)`.
#[derive(Debug)]
pub struct JsonList<'a>(pub &'a [String]);

impl fmt::Display for JsonList<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, in_: Context<'_, S>) {
        begin_span(attributes, id, &in_);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, in_: Context<'_, S>) {
        record_in_span(id, values, &in_);
    }

    fn on_event(&self, event: &Event<'_>, in_: Context<'_, S>) {
        thread_local! {
            static LINE: RefCell<String> = const { RefCell::new(String::new()) };
        }
        // Writing a line may itself log.
        let mut line = LINE.take();
        line.clear();
        format_line(event, &in_, self.thread_names, &mut line);
        // A line that cannot be written is counted by the writer.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(line.as_bytes());
        LINE.set(line);
    }
}

/// Stores what log lines have of a new span. Two layers may format the same events, and do it both.
pub(super) fn begin_span<S>(attributes: &span::Attributes<'_>, id: &span::Id, in_: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Some(span) = in_.span(id) else { return };
    let parent = span.parent();
    let inherited = parent.and_then(|parent| parent.extensions().get::<LogContext>().cloned());
    let mut context = inherited.unwrap_or_default();
    attributes.record(&mut context);
    span.extensions_mut().replace(context);
}

/// Stores what log lines have of a span, when it is recorded later.
pub(super) fn record_in_span<S>(id: &span::Id, values: &span::Record<'_>, in_: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Some(span) = in_.span(id) else { return };
    if let Some(context) = span.extensions_mut().get_mut::<LogContext>() {
        values.record(context);
    }
}

/// Appends an event as a line of JSON.
pub(super) fn format_line<S>(
    event: &Event<'_>,
    in_: &Context<'_, S>,
    thread_names: bool,
    line: &mut String,
) where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let context = in_.event_span(event);
    let context = context.and_then(|span| span.extensions().get::<LogContext>().cloned());
    let mut object = Object { line, keys: Vec::with_capacity(16) };
    let mut time = String::with_capacity(32);
    // Only a clock that is out of range fails.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    object.put("timestamp", &time);
    object.put("level", event.metadata().level().as_str());
    object.put("target", event.metadata().target());
    if thread_names && let Some(name) = std::thread::current().name() {
        object.put("threadName", name);
    }
    event.record(&mut object);
    for (name, value) in SPAN_FIELDS.into_iter().zip(context.unwrap_or_default().0) {
        if let Some(value) = value {
            object.put(name, &*value);
        }
    }
    line.push_str(if line.is_empty() { "{}\n" } else { "}\n" });
}

impl Visit for LogContext {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(index) = SPAN_FIELDS.into_iter().position(|name| name == field.name()) {
            self.0[index] = Some(value.into());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if SPAN_FIELDS.contains(&field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

/// A JSON object under construction.
struct Object<'a> {
    line: &'a mut String,
    keys: Vec<&'static str>,
}

impl Object<'_> {
    /// Writes the key, unless the object has it. The first value of a key counts.
    fn key(&mut self, key: &'static str) -> bool {
        if self.keys.contains(&key) {
            return false;
        }
        self.line.push(if self.keys.is_empty() { '{' } else { ',' });
        self.keys.push(key);
        append(self.line, key);
        self.line.push(':');
        true
    }

    fn put<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) {
        if self.key(key) {
            append(self.line, value);
        }
    }
}

/// Appends a value as JSON.
fn append<T: Serialize + ?Sized>(line: &mut String, value: &T) {
    // Numbers, booleans and texts are always JSON.
    line.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
}

impl Visit for Object<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name().strip_suffix(JSON_SUFFIX) {
            Some(name) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => {
                if self.key(name) {
                    self.line.push_str(&text);
                }
            }
            Some(name) => self.put(name, &text),
            None => self.put(field.name(), &text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::LogSink;

    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let writer = LogSink::Memory(Arc::clone(&buffer));
        let layer = JsonLines { writer, thread_names: false };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let buffer = buffer.lock().unwrap();
        String::from_utf8_lossy(&buffer)
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                line.as_object_mut().unwrap().remove("timestamp").unwrap();
                line
            })
            .collect()
    }

    #[test]
    fn a_line_has_the_fields_of_the_event_and_the_ids_of_the_innermost_span() {
        let lines = logged(|| {
            let outer = tracing::info_span!("outer", request_id = "r1", trace_id = "t0", x = 1);
            outer.record("trace_id", "t1");
            let _outer = outer.entered();
            let _inner = tracing::info_span!("inner", y = 2).entered();
            tracing::warn!(count = 3, ok = true, name = "a\"b", error = ?Some(1), "it happened");
            tracing::info!(request_id = "r2", "other");
        });
        let expected = json!({
            "level": "WARN", "target": "drawbridge_runtime::telemetry::json::tests",
            "message": "it happened", "count": 3, "ok": true, "name": "a\"b", "error": "Some(1)",
            "request_id": "r1", "trace_id": "t1",
        });
        assert_eq!(lines[0], expected);
        assert_eq!(lines[1]["request_id"], "r2");
    }

    #[test]
    fn a_list_is_a_list_and_no_key_is_there_twice() {
        let ids = ["a".to_owned(), "b\"\u{1}".to_owned()];
        let lines = logged(|| {
            tracing::info!("policy_ids[]" = %JsonList(&ids), "broken[]" = %"]", "listed");
            tracing::info!(message = "the field", "the text");
        });
        assert_eq!(lines[0]["policy_ids"], json!(ids));
        assert_eq!(lines[0]["broken"], json!("]"));
        assert!(lines[1]["message"].is_string());
    }
}
