//! Calls: content, progress, cancellation, failures, completion, endpoints of single services.

use std::{sync::atomic::Ordering, time::Duration};

use drawbridge_tests::{TestMesh, serve_conformance};
use http::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

#[tokio::test]
async fn progress_precedes_the_result_and_a_disconnect_cancels_the_call() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (service, _hosted, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let call = |milliseconds: u32| {
        json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {
                "name": "test_slow_work",
                "arguments": { "milliseconds": milliseconds },
                "_meta": { "progressToken": "p" },
            },
        })
        .to_string()
    };
    let reply = alice.send_body(call(200)).await;
    let events: Vec<Value> = reply
        .text
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    assert!(events.len() > 5, "{reply:?}");
    let (last, progress) = events.split_last().expect("events");
    assert_eq!(last["result"]["content"][0]["text"], "worked");
    for (step, event) in progress.iter().enumerate() {
        assert_eq!(event["method"], "notifications/progress");
        assert_eq!(event["params"]["progressToken"], "p");
        assert_eq!(event["params"]["message"], format!("step {step}"));
    }
    assert_eq!(service.finished.load(Ordering::Relaxed), 1);

    let interrupted =
        tokio::time::timeout(Duration::from_millis(200), alice.send_body(call(60_000))).await;
    assert!(interrupted.is_err());
    for _ in 0..100 {
        if service.cancelled.load(Ordering::Relaxed) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the service did not stop after the disconnect");
}

#[tokio::test]
async fn a_failed_call_is_reported_to_the_model_or_to_the_client_by_its_status() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let fail = async |code: Code| {
        let arguments = json!({ "code": code as i32, "message": "the cause" });
        alice.call_tool("test_fail_with", arguments).await
    };
    for code in [
        Code::InvalidArgument,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::NotFound,
        Code::AlreadyExists,
        Code::Aborted,
        Code::PermissionDenied,
        Code::ResourceExhausted,
    ] {
        let reply = fail(code).await;
        assert_eq!(reply.json["result"]["isError"], true, "{code:?}: {reply:?}");
        assert_eq!(reply.message(), "the cause");
        reply.assert_names_request();
    }
    for code in [Code::Unavailable, Code::DeadlineExceeded] {
        let reply = fail(code).await;
        assert_eq!(reply.error_code(), Some(-32053), "{code:?}: {reply:?}");
        assert_eq!(reply.json["error"]["data"]["retryable"], true);
    }
    for code in
        [Code::Internal, Code::Unknown, Code::DataLoss, Code::Unauthenticated, Code::Unimplemented]
    {
        let reply = fail(code).await;
        assert_eq!(reply.error_code(), Some(-32603), "{code:?}: {reply:?}");
        assert!(!reply.text.contains("the cause"), "{code:?}: {reply:?}");
        reply.assert_names_request();
    }
}

#[tokio::test]
async fn an_idempotent_call_is_retried_once_when_its_service_is_unavailable() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (service, _hosted, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let arguments = json!({ "code": Code::Unavailable as i32, "message": "away", "times": 1 });
    let reply = alice.call_tool("test_fail_with", arguments).await;
    assert_eq!(reply.message(), "succeeded at last", "{reply:?}");
    assert_eq!(service.failures.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn arguments_of_a_prompt_are_validated_and_completed() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let prompt = "test_prompt_with_arguments";
    let missing =
        alice.call("prompts/get", json!({ "name": prompt, "arguments": { "arg1": "x" } })).await;
    assert_eq!(missing.error_code(), Some(-32602));
    assert!(missing.message().contains("\"arg2\" is missing"), "{missing:?}");
    let unknown = alice.call("prompts/get", json!({ "name": "no_such" })).await;
    assert_eq!(unknown.error_code(), Some(-32602));

    let complete = async |value: &str| {
        let argument = json!({ "name": "arg1", "value": value });
        alice
            .call(
                "completion/complete",
                json!({ "ref": { "type": "ref/prompt", "name": prompt }, "argument": argument }),
            )
            .await
    };
    let completed = complete("test").await;
    let expected = json!({ "values": ["testValue1", "testValue2"], "total": 2, "hasMore": false });
    assert_eq!(completed.json["result"]["completion"], expected, "{completed:?}");
}

#[tokio::test]
async fn the_endpoint_of_one_service_serves_only_that_service() {
    let mesh = TestMesh::with(serve_conformance).await;
    let service = mesh.conformance(|_| {}).await;
    let code = mesh.mesh.state.services["code"].clone();
    let test = mesh.grpc_url(service.1.running.address);
    let edge = mesh.edge(&[("code", &code), ("test", &test)], |_| {}).await;
    let alice = mesh.client("alice").await;
    assert!(edge.client(&alice).tools().await.len() > 20);

    let mut code_url = edge.url.clone();
    code_url.set_path("/mcp/code");
    let client = alice.at(&code_url);
    assert_eq!(client.tools().await, ["code_list_files", "code_search"]);
    let other = client.call_tool("test_simple_text", json!({})).await;
    assert_eq!(other.error_code(), Some(-32602), "{other:?}");

    let mut unknown_url = edge.url.clone();
    unknown_url.set_path("/mcp/nowhere");
    let reply = alice.at(&unknown_url).call("tools/list", json!({})).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);

    // The challenge to an unauthenticated client names the metadata of that endpoint.
    let challenge = mesh.anonymous().at(&code_url).call("tools/list", json!({})).await;
    let challenge = challenge.headers["www-authenticate"].to_str().expect("a text").to_owned();
    assert!(challenge.contains("/.well-known/oauth-protected-resource/mcp/code\""), "{challenge}");
    let mut metadata = edge.url.clone();
    metadata.set_path("/.well-known/oauth-protected-resource/mcp/code");
    let metadata: Value =
        reqwest::get(metadata).await.expect("a response").json().await.expect("JSON");
    let resource = metadata["resource"].as_str().expect("a resource");
    assert!(resource.ends_with("/mcp/code"), "{metadata}");

    // A token for one service's endpoint is valid there alone; one for the edge is valid at all.
    let token =
        drawbridge_tests::sign_in(&mesh.mesh.state.issuer, resource, "alice", "alice").await;
    let narrow = mesh.client_with(&token);
    assert_eq!(narrow.at(&code_url).tools().await.len(), 2);
    let rejected = narrow.at(&edge.url).call("tools/list", json!({})).await;
    assert_eq!(rejected.status, StatusCode::UNAUTHORIZED, "{rejected:?}");
}
