//! Each call is one trace.

use drawbridge_tests::{Collector, REQUEST_ID, Span, TestMesh};
use serde_json::json;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

async fn traced() -> (TestMesh, Collector) {
    let (collector, url) = Collector::start().await;
    let mesh = TestMesh::with(|config| config.telemetry.otlp_endpoint = Some(url)).await;
    (mesh, collector)
}

fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{PARENT}-01")
}

#[track_caller]
fn one(spans: &[Span], service: &str, name: &str) -> Span {
    let found: Vec<_> =
        spans.iter().filter(|span| span.service == service && span.name == name).collect();
    assert_eq!(found.len(), 1, "{service} {name} in {spans:#?}");
    found[0].clone()
}

/// Asserts that these spans form one `tools/call`, hop by hop.
#[track_caller]
fn check_one_call(spans: &[Span]) {
    let edge = one(spans, "edge", "tools/call code_search");
    assert_eq!(edge.parent_id, PARENT);
    for (service, rpc) in [
        ("auth", "drawbridge.auth.v1.AuthService/Authorize"),
        ("code", "drawbridge.code.v1.CodeService/Search"),
    ] {
        let client = one(spans, "edge", rpc);
        assert_eq!(client.parent_id, edge.span_id, "{rpc}");
        let server = one(spans, service, rpc);
        assert_eq!(server.parent_id, client.span_id, "{rpc}");
        assert!(
            server.attributes.contains(&("rpc.response.status_code".into(), "Ok".into())),
            "{server:?}"
        );
    }
    let attribute = |name: &str| {
        edge.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    assert_eq!(attribute("mcp.method.name"), Some("tools/call"));
    assert_eq!(attribute("gen_ai.tool.name"), Some("code_search"));
    assert_eq!(attribute("mcp.protocol.version"), Some("2025-11-25"));
    assert_eq!(attribute("caller_request_id"), Some(REQUEST_ID));
    assert!(attribute("request_id").is_some_and(|id| id != REQUEST_ID), "{edge:?}");
}

fn of_trace(collector: &Collector, trace: &str) -> Vec<Span> {
    collector.spans().into_iter().filter(|span| span.trace_id == trace).collect()
}

#[tokio::test]
async fn a_call_is_one_trace_that_continues_the_clients_header() {
    let (mesh, collector) = traced().await;
    let alice = mesh.client("alice").await;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "code_search", "arguments": { "query": "fn main" } },
    });
    // Once the token is cached, the edge calls auth only for the tool call.
    alice.tools().await;
    let request = alice.post().header("traceparent", traceparent(TRACE)).body(call.to_string());
    let reply = alice.send(request).await;
    let log = mesh.log();
    mesh.stop().await;
    check_one_call(&of_trace(&collector, TRACE));

    // The log contains the same trace and request id.
    let decision =
        log.lines().find(|line| line.contains(r#""message":"decision""#)).expect("a decision");
    assert!(decision.contains(TRACE) && decision.contains(reply.request_id()), "{decision}");
    assert!(decision.contains(r#""threadName":"auth""#), "{decision}");
}

#[tokio::test]
async fn the_trace_in_meta_wins_over_the_header() {
    let (mesh, collector) = traced().await;
    let alice = mesh.client("alice").await;
    alice.tools().await;
    let other = "11111111111111111111111111111111";
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "code_search",
            "arguments": { "query": "fn main" },
            "_meta": { "traceparent": traceparent(TRACE) },
        },
    });
    alice.send(alice.post().header("traceparent", traceparent(other)).body(call.to_string())).await;
    mesh.stop().await;
    check_one_call(&of_trace(&collector, TRACE));
    assert!(of_trace(&collector, other).is_empty());
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
    }
}
