//! Capabilities that clients declare: pages that a person opens (URL mode elicitation), and
//! extensions.

use std::sync::atomic::Ordering;

use drawbridge_tests::{
    Client, Edge, Reply, TestMesh, conformance::Conformance, serve_conformance,
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::interaction::call_with;

const PAGE: &str = "test_open_page";
const OPENED: &str = "the page was opened";
const INPUT_UNSUPPORTED: &str = "this tool needs input from the client, which does not support it";
const EXTENSIONS: &str = "test_client_extensions";

/// Opens a session of a client that declares these capabilities.
async fn initialize(client: &Client, revision: &str, capabilities: &Value) -> HeaderValue {
    let client_info = json!({ "name": "test", "version": "1" });
    let params = json!({
        "protocolVersion": revision, "capabilities": capabilities, "clientInfo": client_info,
    });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let request = client.post().body(message.to_string()).build().map(|mut request| {
        request.headers_mut().remove("mcp-protocol-version");
        request
    });
    client.send_built(request).await.headers["mcp-session-id"].clone()
}

/// Calls a tool in a session or without one, with this `Accept` header.
async fn call(
    client: &Client,
    tool: &str,
    session: Option<&HeaderValue>,
    accept: &'static str,
    capabilities: Option<&Value>,
) -> Reply {
    let mut params = json!({ "name": tool, "arguments": {} });
    if let Some(capabilities) = capabilities {
        params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": capabilities });
    }
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params });
    let request = client.post().body(message.to_string()).build().map(|mut request| {
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
        if let Some(session) = session {
            request.headers_mut().remove("mcp-protocol-version");
            request.headers_mut().insert("mcp-session-id", session.clone());
        }
        request
    });
    client.send_built(request).await
}

const JSON: &str = "application/json";
const BOTH: &str = "application/json, text/event-stream";

async fn start() -> (TestMesh, Conformance, drawbridge_mesh::HostedService, Edge, Client) {
    let mesh = TestMesh::with(serve_conformance).await;
    let (service, hosted, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    (mesh, service, hosted, edge, alice)
}

/// The only page that the error -32042 names.
fn page(reply: &Reply) -> &Value {
    assert_eq!((reply.status, reply.error_code()), (StatusCode::OK, Some(-32042)), "{reply:?}");
    reply.assert_names_request();
    let pages = reply.json["error"]["data"]["elicitations"].as_array().expect("a list");
    assert_eq!(pages.len(), 1, "{reply:?}");
    assert_eq!(pages[0]["mode"], "url");
    assert_eq!(pages[0]["url"], "https://pages.test/connect");
    assert_eq!(pages[0]["message"], "Connect your account.");
    assert!(pages[0]["elicitationId"].as_str().is_some_and(|id| !id.is_empty()), "{reply:?}");
    &pages[0]
}

#[tokio::test]
async fn a_call_without_a_stream_names_the_page_in_an_error_and_succeeds_once_it_is_open() {
    let (_mesh, service, _hosted, _edge, alice) = start().await;
    let url = json!({ "elicitation": { "url": {} } });
    let session = initialize(&alice, "2025-11-25", &url).await;
    let in_session = call(&alice, PAGE, Some(&session), JSON, None).await;
    let repeated = call(&alice, PAGE, Some(&session), JSON, None).await;
    assert_ne!(page(&in_session)["elicitationId"], page(&repeated)["elicitationId"]);
    for accept in [JSON, BOTH] {
        page(&call(&alice, PAGE, None, accept, Some(&url)).await);
    }
    service.opened.store(true, Ordering::Relaxed);
    for (session, capabilities) in [(Some(&session), None), (None, Some(&url)), (None, None)] {
        let reply = call(&alice, PAGE, session, JSON, capabilities).await;
        assert_eq!(
            (reply.json["result"]["isError"].as_bool(), reply.message()),
            (Some(false), OPENED)
        );
    }
}

#[tokio::test]
async fn a_client_that_cannot_open_pages_receives_no_page() {
    let (_mesh, _service, _hosted, _edge, alice) = start().await;
    let (url, form) = (json!({ "elicitation": { "url": {} } }), json!({ "elicitation": {} }));
    let declares_forms = initialize(&alice, "2025-11-25", &form).await;
    // URL mode was added in 2025-11-25.
    let older = initialize(&alice, "2025-06-18", &url).await;
    for session in [&declares_forms, &older] {
        let reply = call(&alice, PAGE, Some(session), JSON, Some(&url)).await;
        assert_eq!(
            (reply.json["result"]["isError"].as_bool(), reply.message()),
            (Some(true), INPUT_UNSUPPORTED)
        );
    }
    for capabilities in [None, Some(&form)] {
        let reply = call(&alice, PAGE, None, BOTH, capabilities).await;
        assert_eq!(
            (reply.json["result"]["isError"].as_bool(), reply.message()),
            (Some(true), INPUT_UNSUPPORTED)
        );
    }
    // An error cannot request a form.
    let session =
        initialize(&alice, "2025-11-25", &json!({ "elicitation": { "form": {}, "url": {} } }))
            .await;
    let reply = call(&alice, "test_elicitation_sep1034_defaults", Some(&session), JSON, None).await;
    assert_eq!(
        (reply.json["result"]["isError"].as_bool(), reply.message()),
        (Some(true), INPUT_UNSUPPORTED)
    );
}

#[tokio::test]
async fn an_elicitation_id_is_sent_only_in_the_revision_that_has_it() {
    let (_mesh, _service, _hosted, _edge, alice) = start().await;
    let url = json!({ "elicitation": { "url": {} } });
    let requested = call_with(&alice, PAGE, json!({}), url.clone(), json!({})).await;
    let request = &requested.json["result"]["inputRequests"]["page"];
    let params = json!({
        "mode": "url", "url": "https://pages.test/connect", "message": "Connect your account.",
    });
    let expected = json!({ "method": "elicitation/create", "params": params });
    assert_eq!(*request, expected, "{requested:?}");
    let state = &requested.json["result"]["requestState"];
    let input =
        json!({ "requestState": state, "inputResponses": { "page": { "action": "accept" } } });
    let done = call_with(&alice, PAGE, json!({}), url.clone(), input).await;
    assert_eq!(done.message(), "it will be opened", "{done:?}");

    let session = initialize(&alice, "2025-11-25", &url).await;
    let params = json!({ "name": PAGE, "arguments": {} });
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params });
    let request = alice.post().header("mcp-session-id", &session).body(message.to_string());
    let mut stream = request.send().await.expect("a response");
    let mut text = String::new();
    while !text.contains("elicitation/create") || !text.ends_with("\n\n") {
        text.push_str(&String::from_utf8_lossy(
            &stream.chunk().await.expect("a chunk").expect("more"),
        ));
    }
    let requested =
        text.lines().filter_map(|line| line.strip_prefix("data: ")).find(|data| !data.is_empty());
    let requested: Value = serde_json::from_str(requested.expect("a request")).expect("JSON");
    let id = requested["params"]["elicitationId"].as_str();
    assert!(id.is_some_and(|id| !id.is_empty()), "{requested}");
    let result = json!({ "action": "accept" });
    let response = json!({ "jsonrpc": "2.0", "id": requested["id"], "result": result });
    alice.send(alice.post().header("mcp-session-id", &session).body(response.to_string())).await;
    assert!(stream.text().await.expect("the rest").contains("it will be opened"));
}

#[tokio::test]
async fn the_extensions_of_a_client_reach_the_tool_service() {
    let (_mesh, _service, _hosted, _edge, alice) = start().await;
    let types =
        json!({ "io.modelcontextprotocol/ui": { "mimeTypes": ["text/html;profile=mcp-app"] } });
    let capabilities = json!({ "extensions": types });
    let text = r#"{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}"#;
    let stateless = call_with(&alice, EXTENSIONS, json!({}), capabilities.clone(), json!({})).await;
    assert_eq!(stateless.message(), text, "{stateless:?}");
    let session = initialize(&alice, "2025-11-25", &capabilities).await;
    for accept in [JSON, BOTH] {
        assert_eq!(call(&alice, EXTENSIONS, Some(&session), accept, None).await.message(), text);
    }
    let without = initialize(&alice, "2025-11-25", &json!({})).await;
    assert_eq!(call(&alice, EXTENSIONS, Some(&without), BOTH, None).await.message(), "none");
    let long = json!({ "extensions": { "acme/long": { "text": "x".repeat(4096) } } });
    let session = initialize(&alice, "2025-11-25", &long).await;
    assert_eq!(call(&alice, EXTENSIONS, Some(&session), BOTH, None).await.message(), "none");
}
