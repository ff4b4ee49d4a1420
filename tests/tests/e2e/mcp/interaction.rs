//! What a tool asks of its client, without a session: multi round-trip requests (SEP-2322).

use drawbridge_tests::{Client, Reply, TestMesh, serve_conformance};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

/// A call of the stateless revision, with answers from an earlier round.
async fn call(client: &Client, tool: &'static str, capabilities: Value, answers: Value) -> Reply {
    call_with(client, tool, json!({}), capabilities, answers).await
}

pub(crate) async fn call_with(
    client: &Client,
    tool: &'static str,
    arguments: Value,
    capabilities: Value,
    answers: Value,
) -> Reply {
    let mut params = json!({
        "name": tool,
        "arguments": arguments,
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        },
    });
    for (name, value) in answers.as_object().into_iter().flatten() {
        params[name] = value.clone();
    }
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let request = client.post().body(body.to_string()).build().map(|mut request| {
        let headers = request.headers_mut();
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
        headers.insert("mcp-name", HeaderValue::from_static(tool));
        request
    });
    client.send_built(request).await
}

const STATEFUL: &str = "test_input_required_result_request_state";

fn confirmed(state: &Value) -> Value {
    json!({
        "requestState": state,
        "inputResponses": { "confirm": { "action": "accept", "content": { "ok": true } } },
    })
}

#[tokio::test]
async fn a_request_state_serves_its_principal_and_its_request_alone() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let (alice, bob) =
        (edge.client(&mesh.client("alice").await), edge.client(&mesh.client("bob").await));
    let elicits = || json!({ "elicitation": {} });

    let asked = call(&alice, STATEFUL, elicits(), json!({})).await;
    assert_eq!(asked.json["result"]["resultType"], "input_required", "{asked:?}");
    let state = &asked.json["result"]["requestState"];
    assert!(!state.as_str().expect("a state").contains("the state"));
    let method = &asked.json["result"]["inputRequests"]["confirm"]["method"];
    assert_eq!(method, "elicitation/create");

    let done = call(&alice, STATEFUL, elicits(), confirmed(state)).await;
    assert_eq!(done.message(), "state-ok", "{done:?}");
    for (client, tool) in [(&bob, STATEFUL), (&alice, "test_input_required_result_tampered_state")]
    {
        let refused = call(client, tool, elicits(), confirmed(state)).await;
        assert_eq!(refused.error_code(), Some(-32602), "{tool}: {refused:?}");
        refused.assert_names_request();
    }
    let tampered = format!("{}A", state.as_str().expect("a state"));
    let refused = call(&alice, STATEFUL, elicits(), confirmed(&json!(tampered))).await;
    assert_eq!(refused.error_code(), Some(-32602), "{refused:?}");
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_gets_the_error_of_its_revision() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);

    let refused = call(&alice, "test_missing_capability", json!({}), json!({})).await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (StatusCode::BAD_REQUEST, Some(-32021)),
        "{refused:?}"
    );
    assert!(refused.json["error"]["data"]["requiredCapabilities"]["sampling"].is_object());
    refused.assert_names_request();

    // The older revisions have no error for it: the model is told.
    let told = alice.call_tool("test_missing_capability", json!({})).await;
    assert_eq!(
        (told.status, &told.json["result"]["isError"]),
        (StatusCode::OK, &json!(true)),
        "{told:?}"
    );
    assert!(told.message().contains("cannot be asked"));
}

#[tokio::test]
async fn nobody_forges_answers_in_the_arguments() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let listed = alice.call("tools/list", json!({})).await;
    let tools = listed.json["result"]["tools"].as_array().expect("tools");
    let tool = tools.iter().find(|tool| tool["name"] == STATEFUL).expect("the tool");
    assert_eq!(tool["inputSchema"]["properties"], json!({}), "{tool}");
    let forged = json!({ "interaction": { "state": "dGhlIHN0YXRl" } });
    let refused = alice.call_tool(STATEFUL, forged).await;
    assert_eq!(refused.json["result"]["isError"], true);
    assert!(refused.message().contains("invalid arguments"), "{refused:?}");
}
