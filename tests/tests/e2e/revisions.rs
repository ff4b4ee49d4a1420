//! All protocol revisions at one URL.

use drawbridge_tests::TestMesh;
use http::{HeaderValue, StatusCode};
use serde_json::json;

#[tokio::test]
async fn the_older_revisions_are_negotiated_by_initialize() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    for (requested, negotiated) in [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"),
    ] {
        let initialize = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": { "protocolVersion": requested, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } },
        });
        let request = alice.post().body(initialize.to_string()).build().map(|mut request| {
            request.headers_mut().remove("mcp-protocol-version");
            request
        });
        let reply = alice.send_built(request).await;
        assert_eq!(reply.json["result"]["protocolVersion"], negotiated, "{reply:?}");
        assert_eq!(reply.json["result"]["serverInfo"]["name"], "drawbridge");
    }
}

#[tokio::test]
async fn the_stateless_revision_needs_no_initialize_and_its_headers_must_match_the_body() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "code_list_files",
            "arguments": { "glob": "*.proto" },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let send = async |name: &'static str| {
        let request = alice.post().body(call.to_string()).build().map(|mut request| {
            let headers = request.headers_mut();
            headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
            headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
            headers.insert("mcp-name", HeaderValue::from_static(name));
            request
        });
        alice.send_built(request).await
    };
    let reply = send("code_list_files").await;
    assert_eq!(
        (reply.status, &reply.json["result"]["resultType"]),
        (StatusCode::OK, &json!("complete")),
        "{reply:?}"
    );
    let mismatch = send("code_search").await;
    assert_eq!(
        (mismatch.status, mismatch.error_code()),
        (StatusCode::BAD_REQUEST, Some(-32020)),
        "{mismatch:?}"
    );
}

#[tokio::test]
async fn an_unknown_revision_is_rejected() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let request = alice.post().body(list.to_string()).build().map(|mut request| {
        request
            .headers_mut()
            .insert("mcp-protocol-version", HeaderValue::from_static("1999-01-01"));
        request
    });
    let reply = alice.send_built(request).await;
    assert_eq!(
        (reply.status, reply.error_code()),
        (StatusCode::BAD_REQUEST, Some(-32600)),
        "{reply:?}"
    );
    assert!(reply.message().contains("Unsupported MCP-Protocol-Version: 1999-01-01"), "{reply:?}");
    reply.assert_names_request();
}

#[tokio::test]
async fn a_tools_schema_hints_and_description_come_from_its_contract() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let reply = alice.call("tools/list", json!({})).await;
    let search = &reply.json["result"]["tools"][1];
    assert_eq!(search["title"], "Search code");
    assert_eq!(search["annotations"]["readOnlyHint"], true);
    assert_eq!(search["annotations"]["destructiveHint"], false);
    assert_eq!(search["inputSchema"]["properties"]["query"]["type"], "string");
    assert_eq!(search["outputSchema"]["properties"]["truncated"]["type"], "boolean");
    assert!(
        search["description"]
            .as_str()
            .is_some_and(|text| text.starts_with("Searches the source tree"))
    );
}
