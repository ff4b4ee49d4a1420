//! Questions to the client: their spans, and what links to them.

use drawbridge_tests::serve_conformance;
use http::HeaderValue;
use serde_json::Value;

use super::*;
use crate::hardening::sessions::{Stream, initialize};

async fn traced_conformance() -> (TestMesh, Collector) {
    traced_with(serve_conformance).await
}

/// In a session, the client answers a question by a request of its own.
#[tokio::test]
async fn the_answer_to_a_question_links_to_it() {
    let (mesh, collector) = traced_conformance().await;
    let (_, service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let session = initialize(&alice).await.1.expect("a session");
    let in_session = |trace: &str| {
        let request = alice.post().header("mcp-session-id", &session);
        request.header("traceparent", traceparent(trace, "01"))
    };
    let call = json!({
        "jsonrpc": "2.0", "id": "a call", "method": "tools/call",
        "params": { "name": "test_elicitation", "arguments": { "message": "Who are you?" } },
    });
    let mut stream = Stream::open(in_session(TRACE).body(call.to_string()).build()).await;
    let question = stream.until("elicitation/create").await;
    let answer = json!({
        "jsonrpc": "2.0", "id": question["id"],
        "result": { "action": "accept", "content": { "username": "a", "email": "a@b.example" } },
    });
    alice.send(in_session(OTHER).body(answer.to_string())).await;
    stream.until("a call").await;
    for hosted in [edge.hosted, service] {
        hosted.stop().await;
    }
    mesh.stop().await;

    let spans = collector.trace(TRACE);
    let call = one(&spans, "edge", "tools/call test_elicitation");
    let question = one(&spans, "edge", "elicitation/create");
    assert_eq!((question.kind, &question.parent_id), ("client", &call.span_id), "{question:?}");
    assert_eq!(question.attribute("mcp.method.name"), Some("elicitation/create"));
    assert!(!question.is_error, "{question:?}");
    let answers = collector.trace(OTHER);
    let linked: Vec<_> = answers.iter().filter(|span| !span.links.is_empty()).collect();
    let [answer] = &linked[..] else { panic!("{answers:#?}") };
    assert_eq!(answer.links, [question.span_id], "{answer:?}");
    assert!(!format!("{spans:?}{answers:?}").contains("a@b.example"));
}

/// Without a session, the client calls again with the answer.
#[tokio::test]
async fn a_call_that_continues_with_an_answer_links_to_the_call_that_asked() {
    const TOOL: &str = "test_input_required_result_request_state";
    let (mesh, collector) = traced_conformance().await;
    let (_, service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let call = async |trace: &str, input: Value| {
        let mut params = json!({
            "name": TOOL, "arguments": {},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
            },
        });
        params.as_object_mut().expect("params").extend(input.as_object().expect("input").clone());
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let request = alice.post().header("traceparent", traceparent(trace, "01"));
        let request = request.body(body.to_string()).build().map(|mut request| {
            let headers = request.headers_mut();
            headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
            headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
            headers.insert("mcp-name", HeaderValue::from_static(TOOL));
            request
        });
        alice.send_built(request).await
    };
    let asked = call(TRACE, json!({})).await;
    let state = &asked.json["result"]["requestState"];
    assert!(state.is_string(), "{asked:?}");
    let answer = json!({ "action": "accept", "content": { "ok": true } });
    let input = json!({ "requestState": state, "inputResponses": { "confirm": answer } });
    let done = call(OTHER, input).await;
    assert_eq!(done.message(), "state-ok", "{done:?}");
    for hosted in [edge.hosted, service] {
        hosted.stop().await;
    }
    mesh.stop().await;

    let name = format!("tools/call {TOOL}");
    let asked = one(&collector.trace(TRACE), "edge", &name);
    let continued = one(&collector.trace(OTHER), "edge", &name);
    assert!(asked.links.is_empty(), "{asked:?}");
    assert_eq!(continued.links, [asked.span_id], "{continued:?}");
}
