//! The export of log records to a collector, beside the log. They have the same fields as the lines
//! of JSON. What the collector does not take in time is dropped and counted.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::InstrumentationScope,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::{
    Event, Metadata, Subscriber, instrument::WithSubscriber as _, span, subscriber::NoSubscriber,
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use self::record::record;
use super::{
    export_state::ExportState,
    json::{begin_span, format_line, record_in_span},
    trace::{SpanContext, context_of_id},
};
use crate::{
    metrics::LOG_RECORDS_LOST,
    otlp::{OtlpClient, OtlpVariables},
};

mod record;

/// How many log records may wait for the collector, unless `OTEL_BLRP_MAX_QUEUE_SIZE` is set.
const QUEUE_RECORDS_MAX: usize = 2048;
/// How many log records a request has at most, unless `OTEL_BLRP_MAX_EXPORT_BATCH_SIZE` is set.
const BATCH_RECORDS_MAX: usize = 512;
/// About the most bytes of a request. Collectors accept 4 MiB.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How long log records wait for others before they are sent, in milliseconds, unless
/// `OTEL_BLRP_SCHEDULE_DELAY` is set.
const EXPORT_INTERVAL_MS: usize = 1000;
/// The libraries that send log records. Sending what they log would make them log more.
const SENDERS: [&str; 7] = ["h2", "hyper", "hyper_util", "reqwest", "rustls", "tonic", "tower"];

/// A line of the log, to be sent.
struct Line {
    time: SystemTime,
    json: String,
    span: Option<SpanContext>,
}

enum Entry {
    Line(Line),
    /// What came before has been sent once this is dropped.
    Flush(oneshot::Sender<()>),
}

/// Queues events for the collector.
pub(super) struct OtlpLogs {
    queue: mpsc::Sender<Entry>,
    state: Arc<ExportState>,
}

/// Waits until what was logged has been sent.
#[derive(Clone)]
pub(super) struct LogFlusher(mpsc::Sender<Entry>);

impl std::fmt::Debug for LogFlusher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LogFlusher")
    }
}

/// The export of log records, with what became of them.
pub(super) fn log_export_state() -> ExportState {
    ExportState::new("logs", &LOG_RECORDS_LOST)
}

/// Whether log records have an event, and their ids a span: any span of Drawbridge's.
pub(super) fn is_exported(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let library = target.split_once("::").map_or(target, |(library, _)| library);
    if metadata.is_span() { library.starts_with("drawbridge") } else { !SENDERS.contains(&library) }
}

/// The layer that queues log records, and what sends them, which runs within the current runtime.
pub(super) fn otlp_logs(
    client: OtlpClient,
    resource: Resource,
    variables: &OtlpVariables,
    state: &Arc<ExportState>,
) -> (OtlpLogs, LogFlusher) {
    let records_max = variables.number("OTEL_BLRP_MAX_QUEUE_SIZE", QUEUE_RECORDS_MAX);
    let (queue, entries) = mpsc::channel(records_max);
    let interval_ms = variables.number("OTEL_BLRP_SCHEDULE_DELAY", EXPORT_INTERVAL_MS);
    let exporter = LogExporter {
        entries,
        client,
        resource,
        state: Arc::clone(state),
        batch_records_max: variables.number("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", BATCH_RECORDS_MAX),
        interval: Duration::from_millis(interval_ms as u64),
    };
    tokio::spawn(exporter.run().with_subscriber(NoSubscriber::new()));
    let flusher = LogFlusher(queue.clone());
    (OtlpLogs { queue, state: Arc::clone(state) }, flusher)
}

impl LogFlusher {
    pub(super) async fn flush(&self) {
        let (flushed, when_flushed) = oneshot::channel();
        if self.0.send(Entry::Flush(flushed)).await.is_ok() {
            // It is dropped, not used.
            let _ = when_flushed.await;
        }
    }
}

impl<S> Layer<S> for OtlpLogs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, in_: Context<'_, S>) {
        begin_span(attributes, id, &in_);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, in_: Context<'_, S>) {
        record_in_span(id, values, &in_);
    }

    fn on_event(&self, event: &Event<'_>, in_: Context<'_, S>) {
        let mut json = String::with_capacity(512);
        format_line(event, &in_, false, &mut json);
        let id = in_.event_span(event).map(|span| span.id());
        let span =
            id.zip(self.state.dispatch()).and_then(|(id, dispatch)| context_of_id(&id, &dispatch));
        let line = Line { time: SystemTime::now(), json, span };
        if self.queue.try_send(Entry::Line(line)).is_err() {
            self.state.queue_was_full();
        }
    }
}

/// Sends log records in batches.
struct LogExporter {
    entries: mpsc::Receiver<Entry>,
    client: OtlpClient,
    resource: Resource,
    state: Arc<ExportState>,
    batch_records_max: usize,
    interval: Duration,
}

impl LogExporter {
    async fn run(mut self) {
        while let Some(first) = self.entries.recv().await {
            let (records, flushed) = self.batch(first).await;
            if !records.is_empty() {
                let count = records.len() as u64;
                let sent = self.client.export(self.request(records)).await;
                self.state.ended(count, &sent.map_err(|error| crate::error_chain(&error)));
            }
            drop(flushed);
        }
    }

    /// The entry with those that come after it: until the batch is full, the interval is over, or
    /// all before a flush.
    async fn batch(&mut self, first: Entry) -> (Vec<LogRecord>, Option<oneshot::Sender<()>>) {
        let over = sleep(self.interval);
        tokio::pin!(over);
        let (mut records, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        loop {
            match next {
                Some(Entry::Line(line)) => {
                    bytes += line.json.len();
                    records.push(record(&line));
                }
                Some(Entry::Flush(flushed)) => return (records, Some(flushed)),
                None => return (records, None),
            }
            if records.len() >= self.batch_records_max || bytes >= BATCH_BYTES_MAX {
                return (records, None);
            }
            next = tokio::select! {
                biased;
                entry = self.entries.recv() => entry,
                () = &mut over => None,
            };
        }
    }

    fn request(&self, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
        let scope = InstrumentationScope { name: "drawbridge".to_owned(), ..Default::default() };
        let scope_logs = ScopeLogs { scope: Some(scope), log_records, ..Default::default() };
        let resource = Some(self.resource.clone());
        let logs = ResourceLogs { resource, scope_logs: vec![scope_logs], ..Default::default() };
        ExportLogsServiceRequest { resource_logs: vec![logs] }
    }
}
