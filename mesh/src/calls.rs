//! The recent calls of a mesh, in memory: their spans and log lines, for `drawbridge trace` and
//! `drawbridge logs`.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use drawbridge_runtime::Observer;
use opentelemetry::{
    Array, Value as OtelValue,
    trace::{SpanId, SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::socket::{CallsError, CallsQuery, CallsSocket, query};

mod socket;

/// How many traces are recorded at most.
pub const TRACES_MAX: usize = 1_000;
/// How many spans, and how many log lines, of one trace are recorded at most.
const PER_TRACE_MAX: usize = 500;
/// How many log lines of no call are recorded at most.
const OTHER_LINES_MAX: usize = 1_000;
/// The size of all that is recorded, in bytes of JSON.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// The field of spans and log lines that names the request.
const REQUEST_ID: &str = "request_id";
const TRACE_ID: &str = "trace_id";

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedSpan {
    /// The service of the span.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its kind: `server`, `client`, `internal`, `producer` or `consumer`.
    pub kind: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// The id of its parent. Empty: it has none.
    pub parent: String,
    /// When it began, in nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
    /// Whether its status is an error.
    pub is_error: bool,
    /// Its attributes.
    pub attributes: BTreeMap<String, Value>,
}

/// A log line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedLine {
    /// Its number, from 1: later lines have higher ones.
    pub number: u64,
    /// The service that logged it.
    pub service: String,
    /// Its fields, with `timestamp`, `level` and `message`.
    pub fields: BTreeMap<String, Value>,
}

/// What is recorded of one request. Other requests of the same trace are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedCall {
    /// The request's id.
    pub request_id: String,
    /// The id of its trace, in hexadecimal. Empty: it has none.
    pub trace_id: String,
    /// Its spans, by their beginning.
    pub spans: Vec<RecordedSpan>,
    /// Its log lines, in order.
    pub lines: Vec<RecordedLine>,
}

/// Records the recent calls of all services of this process.
#[derive(Default)]
pub struct RecentCalls {
    state: Mutex<State>,
}

impl fmt::Debug for RecentCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecentCalls").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// By trace id or, for lines without a trace, by request id.
    traces: HashMap<String, Trace>,
    /// The keys of `traces`, oldest first.
    order: VecDeque<String>,
    /// The trace of each request.
    requests: HashMap<String, String>,
    other_lines: VecDeque<RecordedLine>,
    lines: u64,
    bytes: usize,
}

#[derive(Default)]
struct Trace {
    spans: VecDeque<RecordedSpan>,
    lines: VecDeque<RecordedLine>,
    requests: Vec<String>,
    bytes: usize,
}

impl Trace {
    /// Whether the edge served this request to a client. Services have requests of their own, such
    /// as those that read contracts.
    fn is_of_client(&self, request_id: &str) -> bool {
        let id = Some(request_id);
        self.spans.iter().any(|span| {
            let names = span.attributes.get(REQUEST_ID).and_then(Value::as_str) == id;
            names && span.service == "edge" && span.kind == "server"
        })
    }
}

impl Observer for RecentCalls {
    fn span(&self, service: &'static str, span: &SpanData) {
        let recorded = record(service, span);
        let trace = span.span_context.trace_id().to_string();
        let request = recorded.attributes.get(REQUEST_ID).and_then(Value::as_str);
        let request = request.map(str::to_owned);
        let bytes = size(&recorded);
        let mut state = self.lock();
        let entry = state.trace(&trace, request);
        push(&mut entry.spans, recorded, PER_TRACE_MAX);
        state.grow(&trace, bytes);
    }

    fn log_line(&self, service: &'static str, line: &[u8]) {
        let Ok(fields) = serde_json::from_slice::<BTreeMap<String, Value>>(line) else { return };
        let field = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let (request, trace) = (field(REQUEST_ID), field(TRACE_ID));
        let mut state = self.lock();
        state.lines += 1;
        let line = RecordedLine { number: state.lines, service: service.to_owned(), fields };
        let known = request.as_ref().and_then(|request| state.requests.get(request).cloned());
        let Some(key) = trace.or(known).or_else(|| request.clone()) else {
            push(&mut state.other_lines, line, OTHER_LINES_MAX);
            return;
        };
        let bytes = size(&line);
        push(&mut state.trace(&key, request).lines, line, PER_TRACE_MAX);
        state.grow(&key, bytes);
    }
}

impl RecentCalls {
    /// What is recorded of a request. `None`: nothing, or no more.
    #[must_use]
    pub fn call(&self, request_id: &str) -> Option<RecordedCall> {
        let state = self.lock();
        let key = state.requests.get(request_id)?;
        let trace = state.traces.get(key)?;
        let is_of_request = |line: &&RecordedLine| match line.fields.get(REQUEST_ID) {
            Some(id) => id.as_str() == Some(request_id),
            None => trace.requests.len() == 1,
        };
        Some(RecordedCall {
            request_id: request_id.to_owned(),
            trace_id: if key == request_id { String::new() } else { key.clone() },
            spans: spans_of(trace, request_id),
            lines: trace.lines.iter().filter(is_of_request).cloned().collect(),
        })
    }

    /// All log lines with a number higher than `after`, in order.
    #[must_use]
    pub fn lines(&self, after: u64) -> Vec<RecordedLine> {
        let state = self.lock();
        let all = state.traces.values().flat_map(|trace| &trace.lines).chain(&state.other_lines);
        let mut lines: Vec<_> = all.filter(|line| line.number > after).cloned().collect();
        lines.sort_by_key(|line| line.number);
        lines
    }

    /// The ids of the recorded requests of clients to the edge, the latest first.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let state = self.lock();
        let traces = state.order.iter().rev().filter_map(|key| state.traces.get(key));
        let of_clients = traces.flat_map(|trace| {
            let requests = trace.requests.iter().rev();
            requests.filter(|request| trace.is_of_client(request)).cloned()
        });
        of_clients.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The trace of this key, which it creates, and which is that of the request.
    fn trace(&mut self, key: &str, request: Option<String>) -> &mut Trace {
        if !self.traces.contains_key(key) {
            self.order.push_back(key.to_owned());
        }
        let trace = self.traces.entry(key.to_owned()).or_default();
        if let Some(request) = request
            && !trace.requests.contains(&request)
        {
            if trace.requests.len() == PER_TRACE_MAX {
                self.requests.remove(&trace.requests.remove(0));
            }
            self.requests.insert(request.clone(), key.to_owned());
            trace.requests.push(request);
        }
        trace
    }

    /// Counts what was added to a trace, and drops the oldest traces beyond the limits.
    fn grow(&mut self, key: &str, bytes: usize) {
        self.bytes += bytes;
        if let Some(trace) = self.traces.get_mut(key) {
            trace.bytes += bytes;
        }
        while self.order.len() > TRACES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            let Some(trace) = self.traces.remove(&oldest) else { continue };
            self.bytes -= trace.bytes;
            for request in &trace.requests {
                self.requests.remove(request);
            }
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() == max {
        queue.pop_front();
    }
    queue.push_back(item);
}

fn size(recorded: &impl Serialize) -> usize {
    serde_json::to_vec(recorded).map_or(0, |json| json.len())
}

/// The spans of one request: those that name it, what is below them, and what is above them and
/// names no other.
fn spans_of(trace: &Trace, request_id: &str) -> Vec<RecordedSpan> {
    let by_id: HashMap<_, _> = trace.spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let request_of = |span: &RecordedSpan| {
        // Of the span itself, or of the first above it that names one.
        let mut span = span;
        for _ in 0..PER_TRACE_MAX {
            if let Some(id) = span.attributes.get(REQUEST_ID).and_then(Value::as_str) {
                return Some(id.to_owned());
            }
            span = by_id.get(span.parent.as_str())?;
        }
        None
    };
    let is_wanted = |span: &&RecordedSpan| match request_of(span) {
        Some(id) => id == request_id,
        None => trace.requests.len() == 1,
    };
    let mut spans: Vec<_> = trace.spans.iter().filter(is_wanted).cloned().collect();
    spans.sort_by_key(|span| span.start_unix_ns);
    spans
}

fn record(service: &str, span: &SpanData) -> RecordedSpan {
    let ns = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    let parent = span.parent_span_id;
    let attributes = span.attributes.iter();
    RecordedSpan {
        service: service.to_owned(),
        name: span.name.to_string(),
        kind: kind(&span.span_kind).to_owned(),
        id: span.span_context.span_id().to_string(),
        parent: if parent == SpanId::INVALID { String::new() } else { parent.to_string() },
        start_unix_ns: ns(span.start_time),
        duration_ns: ns(span.end_time).saturating_sub(ns(span.start_time)),
        is_error: matches!(span.status, Status::Error { .. }),
        attributes: attributes.map(|it| (it.key.to_string(), as_json(&it.value))).collect(),
    }
}

fn kind(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

fn as_json(value: &OtelValue) -> Value {
    match value {
        OtelValue::Bool(value) => json!(value),
        OtelValue::I64(value) => json!(value),
        OtelValue::F64(value) => json!(value),
        OtelValue::String(value) => json!(value.as_str()),
        OtelValue::Array(Array::String(all)) => {
            all.iter().map(opentelemetry::StringValue::as_str).collect()
        }
        other => json!(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
