//! Lines as log records of OpenTelemetry.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER_PERMISSIVE;
use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};

use crate::{lines::RecordHead, sink::backlog::Batch};

/// The names of events begin with this.
const EVENT_PREFIX: &str = "drawbridge.audit.";

/// The request that exports a batch of a log.
pub(super) fn request(log: &str, batch: &Batch) -> ExportLogsServiceRequest {
    let mut names = log.splitn(3, '/');
    let (service, replica) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let resource = Resource {
        attributes: vec![
            attribute("service.name", service),
            attribute("service.namespace", "drawbridge"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("drawbridge.audit.replica", replica),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "drawbridge.audit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let lines = (batch.first..).zip(&batch.lines);
    let log_records = lines.map(|(seq, line)| record(log, seq, line)).collect();
    let logs = ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![logs],
            ..ResourceLogs::default()
        }],
    }
}

/// A line with what a collector can select by. The body is the line as it was written: its hash is
/// in the next line.
fn record(log: &str, seq: u64, line: &[u8]) -> LogRecord {
    let observed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut record = LogRecord {
        observed_time_unix_nano: u64::try_from(observed.as_nanos()).unwrap_or_default(),
        severity_number: SeverityNumber::Info.into(),
        severity_text: "INFO".to_owned(),
        body: Some(text(&String::from_utf8_lossy(line))),
        attributes: vec![
            // The receiver recognizes by it what was sent twice.
            attribute("log.record.uid", &format!("{log}#{seq}")),
            attribute("drawbridge.audit.log", log),
        ],
        ..LogRecord::default()
    };
    record.attributes.push(KeyValue {
        key: "drawbridge.audit.seq".to_owned(),
        value: Some(AnyValue { value: Some(Value::IntValue(i64::try_from(seq).unwrap_or(-1))) }),
        ..KeyValue::default()
    });
    // A line that is no record was changed; it is sent as it is.
    if let Ok(head) = serde_json::from_slice::<RecordHead<'_>>(line) {
        record.event_name = format!("{EVENT_PREFIX}{}", head.event);
        let time = head.time.parse::<Timestamp>().ok();
        let time = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
        record.time_unix_nano = time.unwrap_or_default();
        let trace_id = HEXLOWER_PERMISSIVE.decode(head.trace_id.as_bytes());
        record.trace_id = trace_id.ok().filter(|id| id.len() == 16).unwrap_or_default();
    }
    record
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(text(value)), ..KeyValue::default() }
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.to_owned())) }
}
