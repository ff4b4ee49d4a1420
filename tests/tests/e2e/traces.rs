//! Each call is one trace.

use std::time::Duration;

use drawbridge_mesh::MeshConfig;
use drawbridge_runtime::{OtlpProtocol, TracesSampler};
use drawbridge_tests::{Collector, REQUEST_ID, Span, TestMesh};
use serde_json::json;
use url::Url;

mod dependencies;
mod jaeger;
mod outcomes;
mod questions;
mod tree;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER: &str = "11111111111111111111111111111111";
const PARENT: &str = "b7ad6b7169203331";

async fn traced() -> (TestMesh, Collector) {
    traced_with(|_| {}).await
}

async fn traced_with(change: impl FnOnce(&mut MeshConfig)) -> (TestMesh, Collector) {
    let (collector, url) = Collector::start().await;
    let mesh = TestMesh::with(|config| {
        config.telemetry.otlp_endpoint = Some(url);
        change(config);
    })
    .await;
    (mesh, collector)
}

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PARENT}-{flags}")
}

fn search(meta: Option<&str>) -> String {
    let mut call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "code_search", "arguments": { "query": "fn main" } },
    });
    if let Some(trace) = meta {
        call["params"]["_meta"] = json!({ "traceparent": traceparent(trace, "01") });
    }
    call.to_string()
}

#[track_caller]
fn one(spans: &[Span], service: &str, name: &str) -> Span {
    let found: Vec<_> =
        spans.iter().filter(|span| span.service == service && span.name == name).collect();
    assert_eq!(found.len(), 1, "{service} {name} in {spans:#?}");
    found[0].clone()
}

/// Asserts that the spans of the call are one tree, hop by hop.
#[track_caller]
fn check_one_call(spans: &[Span]) {
    let call = one(spans, "edge", "tools/call code_search");
    let authorize = one(spans, "edge", "authorize");
    assert_eq!(authorize.parent_id, call.span_id);
    for (service, rpc, parent) in [
        ("auth", "drawbridge.auth.v1.AuthService/Authorize", &authorize),
        ("code", "drawbridge.code.v1.CodeService/Search", &call),
    ] {
        let client = one(spans, "edge", rpc);
        assert_eq!(client.parent_id, parent.span_id, "{rpc}");
        let server = one(spans, service, rpc);
        assert_eq!(server.parent_id, client.span_id, "{rpc}");
        for span in [client, server] {
            assert_eq!(span.attribute("rpc.response.status_code"), Some("OK"), "{span:?}");
            assert_eq!(span.attribute("rpc.system.name"), Some("grpc"), "{span:?}");
        }
    }
    assert_eq!(call.attribute("mcp.method.name"), Some("tools/call"));
    assert_eq!(call.attribute("gen_ai.operation.name"), Some("execute_tool"));
    assert_eq!(call.attribute("gen_ai.tool.name"), Some("code_search"));
    assert_eq!(call.attribute("mcp.protocol.version"), Some("2025-11-25"));
    assert_eq!(call.attribute("jsonrpc.request.id"), Some("1"));
    assert_eq!(call.attribute("caller_request_id"), Some(REQUEST_ID));
    assert!(call.attribute("request_id").is_some_and(|id| id != REQUEST_ID), "{call:?}");
    assert_eq!(authorize.attribute("drawbridge.policy.ids"), Some("[code-for-engineering]"));
    assert!(authorize.attribute("drawbridge.policy.revision").is_some(), "{authorize:?}");
}

#[tokio::test]
async fn a_call_is_one_trace_that_continues_the_clients_header() {
    let (mesh, collector) = traced().await;
    let alice = mesh.client("alice").await;
    // Once the token is cached, the edge calls auth only for the tool call.
    alice.tools().await;
    let parent = traceparent(TRACE, "01");
    let reply = alice.send(alice.post().header("traceparent", parent).body(search(None))).await;
    let log = mesh.log();
    let port = mesh.mesh.mcp_url.port().map(|port| port.to_string());
    mesh.stop().await;
    let spans = collector.trace(TRACE);
    check_one_call(&spans);
    let http = one(&spans, "edge", "POST /mcp");
    assert_eq!((http.kind, http.parent_id.as_str()), ("server", PARENT));
    assert_eq!(one(&spans, "edge", "tools/call code_search").parent_id, http.span_id);
    let expected = [
        ("http.request.method", "POST"),
        ("http.route", "/mcp"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("url.path", "/mcp"),
        ("server.address", "127.0.0.1"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
    ];
    for (name, value) in expected {
        assert_eq!(http.attribute(name), Some(value), "{name}: {http:?}");
    }
    assert_eq!(http.attribute("server.port"), port.as_deref());
    let names: Vec<_> = http.resource.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["service.namespace", "service.version", "service.instance.id"] {
        assert!(names.contains(&name), "{names:?}");
    }

    // The log contains the same trace and request id.
    let decision =
        log.lines().find(|line| line.contains(r#""message":"decision""#)).expect("a decision");
    assert!(decision.contains(TRACE) && decision.contains(reply.request_id()), "{decision}");
    assert!(decision.contains(r#""threadName":"auth""#), "{decision}");
}

#[tokio::test]
async fn the_trace_in_meta_wins_over_the_header_and_links_to_it() {
    let (mesh, collector) = traced().await;
    let alice = mesh.client("alice").await;
    alice.tools().await;
    let parent = traceparent(OTHER, "01");
    alice.send(alice.post().header("traceparent", parent).body(search(Some(TRACE)))).await;
    let log = mesh.log();
    mesh.stop().await;
    let spans = collector.trace(TRACE);
    check_one_call(&spans);
    let call = one(&spans, "edge", "tools/call code_search");
    let http = one(&collector.trace(OTHER), "edge", "POST /mcp");
    assert_eq!((call.parent_id.as_str(), &call.links), (PARENT, &vec![http.span_id]));
    let line = log
        .lines()
        .rfind(|line| line.contains(r#""message":"answered""#) && line.contains("code_search"));
    assert!(line.is_some_and(|line| line.contains(TRACE)), "{line:?}");
}

#[tokio::test]
async fn no_span_contains_a_token() {
    let (mesh, collector) = traced().await;
    let alice = mesh.client("alice").await;
    alice.call_tool("code_search", json!({ "query": "fn main" })).await;
    mesh.stop().await;
    let spans = collector.spans();
    assert!(!spans.is_empty());
    for span in spans {
        assert!(!format!("{span:?}").contains("eyJ"), "{span:?}");
        assert!(!format!("{span:?}").contains("alice"), "no key, no pseudonym: {span:?}");
    }
}

/// Asserts what is exported of a call that succeeds and of one that fails.
async fn check_sampling(sampler: TracesSampler, ratio: f64, flags: &str, expected: (bool, bool)) {
    let (mesh, collector) = traced_with(|config| {
        config.telemetry.traces_sampler = sampler;
        config.telemetry.traces_sampler_arg = ratio;
    })
    .await;
    let alice = mesh.client("alice").await;
    alice.tools().await;
    let failing = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "code_list_files", "arguments": { "glob": "!refused" } },
    });
    for (trace, body) in [(TRACE, search(None)), (OTHER, failing.to_string())] {
        let parent = traceparent(trace, flags);
        alice.send(alice.post().header("traceparent", parent).body(body)).await;
    }
    mesh.stop().await;
    let is_exported = |trace| !collector.trace(trace).is_empty();
    assert_eq!((is_exported(TRACE), is_exported(OTHER)), expected, "{sampler:?} {ratio} {flags}");
    if expected == (false, true) {
        let spans = collector.trace(OTHER);
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert!(names.contains(&"POST /mcp") && names.contains(&"authorize"), "{names:?}");
    }
}

#[tokio::test]
async fn what_failed_is_exported_with_its_tree_though_its_trace_is_not_sampled() {
    check_sampling(TracesSampler::ParentBasedTraceIdRatio, 0.0, "00", (false, true)).await;
    check_sampling(TracesSampler::TraceIdRatio, 0.0, "01", (false, true)).await;
}

#[tokio::test]
async fn a_sampler_decides_for_itself_or_as_the_caller_has_decided() {
    check_sampling(TracesSampler::ParentBasedTraceIdRatio, 0.0, "01", (true, true)).await;
    check_sampling(TracesSampler::AlwaysOn, 1.0, "00", (true, true)).await;
    check_sampling(TracesSampler::AlwaysOff, 1.0, "01", (false, false)).await;
}

#[tokio::test]
async fn traces_are_exported_over_http_too() {
    let (collector, url) = Collector::start_http().await;
    let mesh = TestMesh::with(|config| {
        config.telemetry.otlp_endpoint = Some(url);
        config.telemetry.otlp_protocol = OtlpProtocol::Http;
    })
    .await;
    let alice = mesh.client("alice").await;
    alice.tools().await;
    let parent = traceparent(TRACE, "01");
    alice.send(alice.post().header("traceparent", parent).body(search(None))).await;
    mesh.stop().await;
    check_one_call(&collector.trace(TRACE));
}

#[tokio::test]
async fn spans_that_a_dead_collector_does_not_take_are_counted() {
    // Nothing listens there.
    let url: Url = "http://127.0.0.1:1".parse().expect("a URL");
    let mesh = TestMesh::with(|config| config.telemetry.otlp_endpoint = Some(url)).await;
    let alice = mesh.client("alice").await;
    alice.tools().await;
    let admin = mesh.mesh.state.admin["edge"].join("metrics").expect("a URL");
    let lost = async || {
        let metrics = reqwest::get(admin.clone()).await.expect("metrics");
        let metrics = metrics.text().await.expect("metrics");
        let lost = r#"telemetry_spans_lost_total{reason="export_failed"} "#;
        let lost = metrics.lines().find_map(|line| line.strip_prefix(lost));
        lost.and_then(|lost| lost.parse().ok()).unwrap_or(0u64)
    };
    while lost().await == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = mesh.log();
    assert!(log.contains("telemetry cannot be exported"), "{log}");
    mesh.stop().await;
}

#[tokio::test]
async fn a_principal_has_one_pseudonym_in_all_spans_and_log_lines() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("pseudonyms.key");
    std::fs::write(&key, "a key of the tests, 32 bytes long").expect("a file");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let (mesh, collector) =
        traced_with(|config| config.telemetry.pseudonym_key_file = Some(key)).await;
    let alice = mesh.client("alice").await;
    let parent = traceparent(TRACE, "01");
    alice.send(alice.post().header("traceparent", parent).body(search(None))).await;
    let log = mesh.log();
    mesh.stop().await;
    let spans = collector.trace(TRACE);
    let call = one(&spans, "edge", "tools/call code_search");
    let pseudonym = call.attribute("enduser.pseudo.id").expect("a pseudonym").to_owned();
    let service: Vec<_> = spans.iter().filter(|span| span.service == "code").collect();
    assert!(
        service.iter().any(|span| span.attribute("enduser.pseudo.id") == Some(&pseudonym)),
        "{service:?}"
    );
    assert!(!format!("{spans:?}").contains("alice"), "{spans:?}");
    for message in ["decision", "called", "answered"] {
        let of = |line: &&str| line.contains(&format!(r#""message":"{message}""#));
        let line = log.lines().filter(of).find(|line| line.contains(TRACE)).unwrap_or_default();
        assert!(line.contains(&pseudonym), "{message}: {line}");
    }
}
