use drawbridge_tests::{Client, Reply, TestMesh};
use http::HeaderValue;
use serde_json::{Value, json};

use super::saved::{found, save};

/// Approves an invoice as a client of the stateless revision with these capabilities.
pub(super) async fn approve(
    client: &Client,
    id: &Value,
    capabilities: Value,
    responses: Value,
) -> Reply {
    let mut params = json!({
        "name": "invoices_approve",
        "arguments": { "invoice_id": id },
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        },
    });
    for (name, value) in responses.as_object().into_iter().flatten() {
        params[name] = value.clone();
    }
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let request = client.post().body(body.to_string()).build().map(|mut request| {
        let headers = request.headers_mut();
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
        headers.insert("mcp-name", HeaderValue::from_static("invoices_approve"));
        request
    });
    client.send_built(request).await
}

/// The user's response to an elicitation.
pub(super) fn respond(elicitation: &Reply, action: &str, approve: bool) -> Value {
    json!({
        "requestState": elicitation.json["result"]["requestState"],
        "inputResponses": { "confirm": { "action": action, "content": { "approve": approve } } },
    })
}

#[tokio::test]
async fn an_approval_needs_the_users_confirmation() {
    let mesh = TestMesh::start().await;
    let (carol, erin) = (mesh.client("carol").await, mesh.client("erin").await);
    // The invoice is in dollars, the limit in euros. It is not shared, but an approver sees it.
    let saved = save(&carol, "A-1", false).await;
    let id = &saved["invoice_id"];
    let elicits = || json!({ "elicitation": {} });

    let refused = approve(&carol, id, elicits(), json!({})).await;
    assert!(refused.is_hidden(), "{refused:?}");

    let elicitation = approve(&erin, id, elicits(), json!({})).await;
    assert_eq!(elicitation.json["result"]["resultType"], "input_required", "{elicitation:?}");
    let question =
        elicitation.json["result"]["inputRequests"]["confirm"]["params"]["message"].to_string();
    for expected in ["A-1", "Hanse Bolts", "1000.25 USD", "1155.26 USD"] {
        assert!(question.contains(expected), "{question}");
    }
    for (action, approve_value) in [("decline", true), ("cancel", true), ("accept", false)] {
        let declined =
            approve(&erin, id, elicits(), respond(&elicitation, action, approve_value)).await;
        assert_eq!(declined.json["result"]["isError"], true, "{declined:?}");
        assert!(declined.message().contains("not approved"), "{declined:?}");
    }
    // A client without elicitation, of this revision and of an older one.
    let cannot = approve(&erin, id, json!({}), json!({})).await;
    assert_eq!(cannot.error_code(), Some(-32021), "{cannot:?}");
    let cannot = erin.call_tool("invoices_approve", json!({ "invoice_id": id })).await;
    assert!(cannot.message().contains("needs input from the client"), "{cannot:?}");
    let open = json!({ "status": "INVOICE_STATUS_OPEN" });
    assert_eq!(found(&carol, open.clone()).await, ["A-1"]);

    let approved = approve(&erin, id, elicits(), respond(&elicitation, "accept", true)).await;
    let approved = &approved.json["result"]["structuredContent"]["invoice"];
    assert_eq!(approved["status"], "INVOICE_STATUS_APPROVED", "{approved}");
    let approval = &approved["approval"];
    assert_eq!((&approval["approved_by"], &approval["confirmed"]), (&json!("erin"), &json!(true)));
    assert_eq!(approval["issuer"], mesh.mesh.state.issuer_name());
    // A repeated approval needs no confirmation and returns the same.
    let again = erin.call_tool("invoices_approve", json!({ "invoice_id": id })).await;
    assert_eq!(&again.json["result"]["structuredContent"]["invoice"], approved, "{again:?}");
    assert_eq!(found(&carol, open).await, [""; 0]);
}
