//! A line of the log as a log record of OpenTelemetry's data model
//! (<https://opentelemetry.io/docs/specs/otel/logs/data-model/>).

use std::time::UNIX_EPOCH;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, SeverityNumber},
};
use serde_json::{Map, Value};

use super::Line;

/// Fields of a line that are not attributes: the record has them itself.
const OWN_FIELDS: [&str; 4] = ["timestamp", "level", "message", "trace_id"];

/// The record of a line.
pub(super) fn record(line: &Line) -> LogRecord {
    let mut fields: Map<String, Value> = serde_json::from_str(&line.json).unwrap_or_default();
    let level = text(&fields, "level");
    let time = line.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_unix_nano = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let ids = line.span.as_ref();
    let body = fields.remove("message").map(value);
    fields.retain(|name, _| !OWN_FIELDS.contains(&name.as_str()));
    LogRecord {
        time_unix_nano,
        observed_time_unix_nano: time_unix_nano,
        severity_number: severity(&level).into(),
        severity_text: level,
        body,
        attributes: attributes(fields),
        flags: ids.map_or(0, |span| span.trace_flags().to_u8().into()),
        trace_id: ids.map_or_else(Vec::new, |span| span.trace_id().to_bytes().to_vec()),
        span_id: ids.map_or_else(Vec::new, |span| span.span_id().to_bytes().to_vec()),
        ..LogRecord::default()
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> String {
    fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn severity(level: &str) -> SeverityNumber {
    match level {
        "TRACE" => SeverityNumber::Trace,
        "DEBUG" => SeverityNumber::Debug,
        "INFO" => SeverityNumber::Info,
        "WARN" => SeverityNumber::Warn,
        "ERROR" => SeverityNumber::Error,
        _ => SeverityNumber::Unspecified,
    }
}

fn attributes(fields: Map<String, Value>) -> Vec<KeyValue> {
    let attribute =
        |(key, field)| KeyValue { key, value: Some(value(field)), ..KeyValue::default() };
    fields.into_iter().map(attribute).collect()
}

fn value(field: Value) -> AnyValue {
    let value = match field {
        Value::Null => None,
        Value::Bool(is) => Some(any_value::Value::BoolValue(is)),
        Value::String(text) => Some(any_value::Value::StringValue(text)),
        Value::Number(number) => Some(match number.as_i64() {
            Some(number) => any_value::Value::IntValue(number),
            None => any_value::Value::DoubleValue(number.as_f64().unwrap_or_default()),
        }),
        Value::Array(values) => {
            let values = values.into_iter().map(self::value).collect();
            Some(any_value::Value::ArrayValue(ArrayValue { values }))
        }
        Value::Object(fields) => {
            Some(any_value::Value::KvlistValue(KeyValueList { values: attributes(fields) }))
        }
    };
    AnyValue { value }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_record_has_the_fields_of_the_line_with_their_types() {
        let json = r#"{"timestamp":"t","level":"WARN","target":"a::b","message":"it happened",
            "count":3,"ratio":0.5,"ok":true,"ids":["x"],"request_id":"r","trace_id":"t"}"#;
        let time = UNIX_EPOCH + Duration::from_secs(2);
        let record = record(&Line { time, json: json.to_owned(), span: None });
        assert_eq!((record.time_unix_nano, record.severity_number), (2_000_000_000, 13));
        assert_eq!((record.severity_text.as_str(), record.trace_id.len()), ("WARN", 0));
        let shown = |value: Option<AnyValue>| format!("{:?}", value.and_then(|any| any.value));
        assert_eq!(shown(record.body), r#"Some(StringValue("it happened"))"#);
        let attributes: Vec<_> = record
            .attributes
            .into_iter()
            .map(|attribute| format!("{}={}", attribute.key, shown(attribute.value)))
            .collect();
        let text = |text: &str| format!("Some(StringValue({text:?}))");
        let ids = format!(
            "Some(ArrayValue(ArrayValue {{ values: [AnyValue {{ value: {} }}] }}))",
            text("x")
        );
        assert_eq!(
            attributes,
            [
                format!("target={}", text("a::b")),
                "count=Some(IntValue(3))".to_owned(),
                "ratio=Some(DoubleValue(0.5))".to_owned(),
                "ok=Some(BoolValue(true))".to_owned(),
                format!("ids={ids}"),
                format!("request_id={}", text("r")),
            ]
        );
    }
}
