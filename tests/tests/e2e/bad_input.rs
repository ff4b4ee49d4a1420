//! Invalid input gets the right status, a clear message and the request id.

use drawbridge_tests::{Reply, TestMesh};
use http::StatusCode;
use serde_json::{Value, json};

#[track_caller]
fn check(reply: &Reply, status: StatusCode, code: Option<i64>, message: &str) {
    assert_eq!((reply.status, reply.error_code()), (status, code), "{reply:?}");
    assert!(reply.message().contains(message), "{reply:?}");
    reply.assert_names_request();
}

#[tokio::test]
async fn a_body_that_is_not_a_json_rpc_message_is_rejected_with_the_reason() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let bad_request = StatusCode::BAD_REQUEST;
    for (body, code, message) in [
        ("{\"jsonrpc\":", -32700, "not JSON"),
        ("", -32700, "not JSON"),
        ("[]", -32600, "not a JSON-RPC 2.0 message"),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", -32600, "jsonrpc must be \"2.0\""),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{}}",
            -32602,
            "name must be a string",
        ),
    ] {
        check(&alice.send_body(body).await, bad_request, Some(code), message);
    }
    let wrong = alice.call_tool("code_search", json!("query")).await;
    check(&wrong, bad_request, Some(-32602), "arguments must be an object");
    let complete = alice.call("completion/complete", json!({ "ref": 7 })).await;
    check(&complete, StatusCode::OK, Some(-32602), "invalid parameters for this method");
    let nested = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{}",
        "{\"a\":".repeat(10_000)
    );
    check(&alice.send_body(nested).await, bad_request, Some(-32700), "not JSON");
    check(&alice.send_body(vec![0xff, 0xfe]).await, bad_request, Some(-32700), "not JSON");
}

#[tokio::test]
async fn unsupported_headers_and_oversized_bodies_are_rejected() {
    let mesh = TestMesh::with(|config| config.bodies.body_bytes_max = 2000).await;
    let alice = mesh.client("alice").await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();

    let typed = alice.post().header("content-type", "text/plain").body(ping.clone());
    let typed = typed.build().map(|mut request| {
        request.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
        request
    });
    let reply = alice.send_built(typed).await;
    check(&reply, StatusCode::UNSUPPORTED_MEDIA_TYPE, Some(-32600), "application/json");

    let html = alice.post().body(ping).build().map(|mut request| {
        request.headers_mut().insert("accept", http::HeaderValue::from_static("text/html"));
        request
    });
    let reply = alice.send_built(html).await;
    check(&reply, StatusCode::NOT_ACCEPTABLE, Some(-32600), "must accept");

    let big =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": { "a": "x".repeat(3000) } });
    let reply = alice.send_body(big.to_string()).await;
    check(&reply, StatusCode::PAYLOAD_TOO_LARGE, Some(-32600), "larger than 2000 bytes");
}

#[tokio::test]
async fn a_client_that_accepts_only_json_gets_json() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "code_list_files", "arguments": {}, "_meta": { "progressToken": 1 } },
    });
    let request = alice.post().body(call.to_string()).build().map(|mut request| {
        request.headers_mut().insert("accept", http::HeaderValue::from_static("application/json"));
        request
    });
    let reply = alice.send_built(request).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(reply.json["result"]["isError"], Value::Bool(false));
}

#[tokio::test]
async fn an_unknown_method_tool_or_resource_is_reported_as_unknown() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let ok = StatusCode::OK;
    check(&alice.call("no/such", json!({})).await, ok, Some(-32601), "unknown method");
    check(&alice.call_tool("no_such", json!({})).await, ok, Some(-32602), "no tool with this name");
    let read = alice.call("resources/read", json!({ "uri": "nowhere://x" })).await;
    check(&read, ok, Some(-32002), "no resource with this URI");
}

#[tokio::test]
async fn invalid_arguments_are_reported_to_the_model_with_their_field() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    for (arguments, message) in [
        (json!({ "query": true }), "query: true is not of type \"string\""),
        (
            json!({ "query": "x", "max_results": -1 }),
            "max_results: -1 is less than the minimum of 1",
        ),
        (json!({ "query": "x", "nonsense": 1 }), "'nonsense' was unexpected"),
        (
            json!({ "query": "x", "max_results": 5000 }),
            "max_results: 5000 is greater than the maximum of 1000",
        ),
        (
            json!({ "query": "x", "context_lines": 99 }),
            "context_lines: 99 is greater than the maximum of 20",
        ),
        (json!({ "query": "" }), "query: \"\" is shorter than 1 character"),
        (json!({}), "\"query\" is a required property"),
        (json!({ "query": "(", "regex": true }), "query"),
        (json!({ "query": "x", "glob": "[" }), "glob"),
    ] {
        let reply = alice.call_tool("code_search", arguments.clone()).await;
        check(&reply, StatusCode::OK, None, message);
        assert_eq!(reply.json["result"]["isError"], Value::Bool(true), "{arguments}");
    }
}
