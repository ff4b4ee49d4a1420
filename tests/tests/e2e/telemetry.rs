//! Metrics and logs at a collector of OTLP, beside Prometheus and the log.

use std::{collections::BTreeMap, fs};

use drawbridge_mesh::{MeshConfig, metric_tables};
use drawbridge_runtime::{
    LogsExporter, MetricsExporter, OtlpProtocol, TracesExporter,
    metric::{MetricKind, Unit},
    otlp::OtlpVariables,
};
use drawbridge_tests::{Collector, TestAuthority, TestMesh, TlsListener};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use crate::gateway::limits::until;

mod planted;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACE_PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Exports everything to this collector, metrics five times a second.
fn export_all(config: &mut MeshConfig, url: Url, protocol: OtlpProtocol) {
    let telemetry = &mut config.telemetry;
    telemetry.otlp_endpoint = Some(url);
    telemetry.otlp_protocol = protocol;
    telemetry.metrics_exporter = vec![MetricsExporter::Otlp, MetricsExporter::Prometheus];
    telemetry.logs_exporter = vec![LogsExporter::Otlp];
    telemetry.otlp_variables = OtlpVariables::default()
        .with("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .with("OTEL_BLRP_SCHEDULE_DELAY", "100");
}

/// Checks the data points of a mesh in which `calls` calls of `code_search` were made.
fn check_points(collector: &Collector, calls: f64) {
    let tables: BTreeMap<_, _> =
        metric_tables().flat_map(|(_, metrics)| metrics).map(|info| (info.name, info)).collect();
    let points = collector.points();
    for point in &points {
        let Some(info) = tables.get(point.name.as_str()) else { panic!("no table has {point:?}") };
        let kind = match info.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let unit = match info.unit {
            Unit::Seconds => "s",
            Unit::Bytes => "By",
            _ => "",
        };
        let described = (point.kind, point.description.as_str(), point.unit.as_str());
        assert_eq!(described, (kind, info.help, unit), "{point:?}");
        let names: Vec<_> = point.attributes.iter().map(|(name, _)| name.as_str()).collect();
        let mut labels = info.labels.to_vec();
        labels.sort_unstable();
        assert_eq!(names, labels, "{point:?}");
    }
    let services = ["idp", "auth", "edge", "code", "invoices", "tickets"];
    for service in services {
        let is_ready = |point: &&drawbridge_tests::DataPoint| {
            (point.service.as_str(), point.name.as_str()) == (service, "drawbridge_ready")
        };
        assert!(points.iter().any(|point| is_ready(&point) && point.value == 1.0), "{service}");
    }
    // The last export was made when the services stopped.
    let search = points.iter().rfind(|point| {
        point.name == "mcp_server_operation_duration_seconds"
            && point.attribute("gen_ai_tool_name") == Some("code_search")
    });
    let search = search.unwrap_or_else(|| panic!("no code_search in {points:#?}"));
    assert_eq!((search.service.as_str(), search.value), ("edge", calls), "{search:?}");
    let total: u64 = search.buckets.iter().sum();
    assert_eq!((search.buckets.len(), total as f64), (16, calls), "{search:?}");
}

/// Checks that the lines of the log about `TRACE` were exported, with their ids.
fn check_records(collector: &Collector, log: &str, request_id: &str) {
    let (records, spans) = (collector.records(), collector.trace(TRACE));
    let mut found = 0;
    for line in log.lines().filter(|line| line.contains(TRACE)) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        // The services of a mesh write one log, each with its own thread.
        let record = records.iter().find(|record| {
            record.service == text("threadName")
                && record.body == text("message")
                && record.trace_id == TRACE
        });
        let record = record.unwrap_or_else(|| panic!("no record of {line} in {records:#?}"));
        assert_eq!(record.severity, text("level"), "{record:?}");
        assert_eq!(record.attribute("target"), Some(&*text("target")), "{record:?}");
        assert_eq!(record.attribute("request_id"), Some(request_id), "{record:?}");
        let span = spans.iter().find(|span| span.span_id == record.span_id);
        let span = span.unwrap_or_else(|| panic!("no span of {record:?} in {spans:#?}"));
        assert_eq!(span.service, record.service, "{record:?}");
        found += 1;
    }
    assert!(found >= 3, "{found} lines: {log}");
}

async fn check_export(collector: &Collector, url: Url, protocol: OtlpProtocol) {
    let mesh = TestMesh::with(|config| {
        export_all(config, url, protocol);
        let variables = &mut config.telemetry.otlp_variables;
        let headers = "authorization=Bearer%20planted-for-the-collector";
        *variables = variables.clone().with("OTEL_EXPORTER_OTLP_HEADERS", headers);
        config.telemetry.log = "info".to_owned();
    })
    .await;
    let alice = mesh.client("alice").await;
    let request = alice.post().header("traceparent", TRACE_PARENT).body(
        json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "code_search", "arguments": { "query": "fn main" } },
        })
        .to_string(),
    );
    let reply = alice.send(request).await;
    let log = mesh.log();
    mesh.stop().await;
    check_points(collector, 1.0);
    check_records(collector, &log, reply.request_id());
    let authorizations = collector.authorizations();
    let expected = Some("Bearer planted-for-the-collector".to_owned());
    assert!(authorizations.iter().all(|header| *header == expected), "{authorizations:?}");
    assert!(!log.contains("planted-for-the-collector"), "{log}");
}

#[tokio::test]
async fn metrics_and_logs_are_exported_over_grpc_as_the_tables_and_the_log_have_them() {
    let (collector, url) = Collector::start().await;
    check_export(&collector, url, OtlpProtocol::Grpc).await;
}

#[tokio::test]
async fn metrics_and_logs_are_exported_over_http_as_the_tables_and_the_log_have_them() {
    let (collector, url) = Collector::start_http().await;
    check_export(&collector, url, OtlpProtocol::Http).await;
}

#[tokio::test]
async fn each_signal_goes_where_its_own_variables_say() {
    let (all, url) = Collector::start_http().await;
    let (of_logs, logs_url) = Collector::start().await;
    let mesh = TestMesh::with(|config| {
        export_all(config, url, OtlpProtocol::Http);
        config.telemetry.traces_exporter = TracesExporter::None;
        let variables = config.telemetry.otlp_variables.clone();
        config.telemetry.otlp_variables = variables
            .with("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", logs_url.as_str())
            .with("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc");
    })
    .await;
    mesh.client("alice").await.tools().await;
    mesh.stop().await;
    assert!(all.records().is_empty() && !all.points().is_empty());
    assert!(!of_logs.records().is_empty() && of_logs.points().is_empty());
    assert!(all.spans().is_empty() && of_logs.spans().is_empty(), "OTEL_TRACES_EXPORTER=none");

    let (own, url) = Collector::start().await;
    let mesh = TestMesh::with(|config| {
        config.telemetry.otlp_variables = OtlpVariables::default()
            .with("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.as_str())
            .with("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
    })
    .await;
    mesh.client("alice").await.tools().await;
    mesh.stop().await;
    assert!(!own.spans().is_empty(), "traces are exported by their own endpoint alone");
    assert!(own.records().is_empty() && own.points().is_empty(), "they are options");
}

#[tokio::test]
async fn what_a_dead_collector_does_not_take_is_counted_by_signal() {
    // Nothing listens there.
    let url: Url = "http://127.0.0.1:1".parse().expect("a URL");
    let mesh = TestMesh::with(|config| export_all(config, url, OtlpProtocol::Grpc)).await;
    mesh.client("alice").await.tools().await;
    let admin = mesh.mesh.state.admin["edge"].join("metrics").expect("a URL");
    for lost in ["log_records", "data_points"] {
        let series = format!(r#"telemetry_{lost}_lost_total{{reason="export_failed"}} "#);
        until(lost, async || {
            let metrics = reqwest::get(admin.clone()).await.expect("metrics");
            let metrics = metrics.text().await.expect("metrics");
            let value = metrics.lines().find_map(|line| line.strip_prefix(series.as_str()));
            value.is_some_and(|value| value != "0")
        })
        .await;
    }
    let log = mesh.log();
    for signal in ["traces", "metrics", "logs"] {
        let field = format!(r#""signal":"{signal}""#);
        let of = |line: &&str| line.contains("telemetry cannot be exported");
        let lines: Vec<_> = log.lines().filter(of).filter(|line| line.contains(&field)).collect();
        assert!(!lines.is_empty(), "{signal}: {log}");
        assert!(lines.len() <= 6, "each service says it once: {lines:?}");
    }
    mesh.stop().await;
}

#[tokio::test]
async fn more_log_records_than_the_queue_takes_are_dropped_and_counted() {
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let url: Url = url.parse().expect("a URL");
    let mesh = TestMesh::with(|config| {
        export_all(config, url, OtlpProtocol::Http);
        config.telemetry.traces_exporter = TracesExporter::None;
        config.telemetry.metrics_exporter.clear();
        let variables = config.telemetry.otlp_variables.clone();
        config.telemetry.otlp_variables = variables.with("OTEL_BLRP_MAX_QUEUE_SIZE", "8");
    })
    .await;
    let alice = mesh.client("alice").await;
    let admin = mesh.mesh.state.admin["edge"].join("metrics").expect("a URL");
    until("a full queue", async || {
        let reply = alice.call("tools/list", json!({})).await;
        assert!(reply.json["result"].is_object(), "no call waits for the collector: {reply:?}");
        let metrics = reqwest::get(admin.clone()).await.expect("metrics");
        let metrics = metrics.text().await.expect("metrics");
        let series = r#"telemetry_log_records_lost_total{reason="queue_full"} "#;
        let value = metrics.lines().find_map(|line| line.strip_prefix(series));
        value.is_some_and(|value| value != "0")
    })
    .await;
    mesh.stop().await;
}

#[tokio::test]
async fn a_collector_at_https_is_trusted_by_the_certificate_of_its_variable_alone() {
    let authority = TestAuthority::new();
    let listener = TlsListener::bind(&authority.sign(&["127.0.0.1"])).await;
    let (collector, url) = Collector::start_https(listener).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    fs::write(&file, &authority.pem).expect("a file");
    for is_trusted in [false, true] {
        let mesh = TestMesh::with(|config| {
            export_all(config, url.clone(), OtlpProtocol::Http);
            if is_trusted {
                let variables = config.telemetry.otlp_variables.clone();
                let file = file.to_str().expect("a path");
                config.telemetry.otlp_variables =
                    variables.with("OTEL_EXPORTER_OTLP_CERTIFICATE", file);
            }
        })
        .await;
        mesh.client("alice").await.tools().await;
        mesh.stop().await;
        let received = [
            collector.spans().is_empty(),
            collector.points().is_empty(),
            collector.records().is_empty(),
        ];
        assert_eq!(received, [!is_trusted; 3], "{is_trusted}");
    }
}
