//! Input that a tool requests from its client without a session: multi round-trip requests
//! (SEP-2322).

use drawbridge_tests::{Client, Reply, TestMesh, serve_conformance};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

/// Calls a tool in the stateless revision, with input for an earlier round.
async fn call(client: &Client, tool: &'static str, capabilities: Value, input: Value) -> Reply {
    call_with(client, tool, json!({}), capabilities, input).await
}

pub(crate) async fn call_with(
    client: &Client,
    tool: &'static str,
    arguments: Value,
    capabilities: Value,
    input: Value,
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
    for (name, value) in input.as_object().into_iter().flatten() {
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
async fn a_request_state_is_valid_only_for_its_principal_and_request() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let (alice, bob) =
        (edge.client(&mesh.client("alice").await), edge.client(&mesh.client("bob").await));
    let elicits = || json!({ "elicitation": {} });

    let requested = call(&alice, STATEFUL, elicits(), json!({})).await;
    assert_eq!(requested.json["result"]["resultType"], "input_required", "{requested:?}");
    let state = &requested.json["result"]["requestState"];
    assert!(!state.as_str().expect("a state").contains("the state"));
    let method = &requested.json["result"]["inputRequests"]["confirm"]["method"];
    assert_eq!(method, "elicitation/create");

    let done = call(&alice, STATEFUL, elicits(), confirmed(state)).await;
    assert_eq!(done.message(), "state-ok", "{done:?}");
    for (client, tool) in [(&bob, STATEFUL), (&alice, "test_input_required_result_tampered_state")]
    {
        let rejected = call(client, tool, elicits(), confirmed(state)).await;
        assert_eq!(rejected.error_code(), Some(-32602), "{tool}: {rejected:?}");
        rejected.assert_names_request();
    }
    let tampered = format!("{}A", state.as_str().expect("a state"));
    let rejected = call(&alice, STATEFUL, elicits(), confirmed(&json!(tampered))).await;
    assert_eq!(rejected.error_code(), Some(-32602), "{rejected:?}");
}

#[tokio::test]
async fn a_client_without_the_capability_receives_the_error_of_its_revision() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);

    let rejected = call(&alice, "test_missing_capability", json!({}), json!({})).await;
    assert_eq!(
        (rejected.status, rejected.error_code()),
        (StatusCode::BAD_REQUEST, Some(-32021)),
        "{rejected:?}"
    );
    assert!(rejected.json["error"]["data"]["requiredCapabilities"]["sampling"].is_object());
    rejected.assert_names_request();

    // The older revisions have no such error: the result reports it to the model.
    let failed = alice.call_tool("test_missing_capability", json!({})).await;
    assert_eq!(
        (failed.status, &failed.json["result"]["isError"]),
        (StatusCode::OK, &json!(true)),
        "{failed:?}"
    );
    assert!(failed.message().contains("needs input from the client"));
}

#[tokio::test]
async fn arguments_cannot_forge_input_responses() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let listed = alice.call("tools/list", json!({})).await;
    let tools = listed.json["result"]["tools"].as_array().expect("tools");
    let tool = tools.iter().find(|tool| tool["name"] == STATEFUL).expect("the tool");
    assert_eq!(tool["inputSchema"]["properties"], json!({}), "{tool}");
    let forged = json!({ "interaction": { "state": "dGhlIHN0YXRl" } });
    let rejected = alice.call_tool(STATEFUL, forged).await;
    assert_eq!(rejected.json["result"]["isError"], true);
    assert!(rejected.message().contains("invalid arguments"), "{rejected:?}");
}
