use drawbridge_tests::{Client, TestMesh};
use serde_json::{Value, json};

use super::{arguments, sample};

/// Saves the sample under this number and returns the stored summary.
pub(crate) async fn save(client: &Client, number: &str, shared: bool) -> Value {
    let xml =
        String::from_utf8(sample("invoice.ubl.xml")).expect("text").replace("DB-2026-0042", number);
    let mut arguments = arguments(xml.as_bytes());
    arguments["shared"] = json!(shared);
    let reply = client.call_tool("invoices_save", arguments).await;
    let result = &reply.json["result"]["structuredContent"];
    assert_eq!(result["created"], true, "{reply:?}");
    result["invoice"].clone()
}

/// The invoice numbers that a client finds, newest first.
pub(crate) async fn found(client: &Client, arguments: Value) -> Vec<String> {
    let reply = client.call_tool("invoices_search", arguments).await;
    let invoices = reply.json["result"]["structuredContent"]["invoices"].as_array().cloned();
    let invoices = invoices.unwrap_or_else(|| panic!("{reply:?}"));
    invoices
        .iter()
        .map(|invoice| invoice["number"].as_str().expect("a number").to_owned())
        .collect()
}

#[tokio::test]
async fn an_invoice_is_saved_found_and_read_by_every_interface() {
    let mesh = TestMesh::start().await;
    let carol = mesh.client("carol").await;
    let saved = save(&carol, "K-1", true).await;
    let (id, uri) = (&saved["invoice_id"], saved["uri"].as_str().expect("a URI"));
    assert_eq!(
        (&saved["status"], &saved["saved_by"]),
        (&json!("INVOICE_STATUS_OPEN"), &json!("carol"))
    );

    assert_eq!(found(&carol, json!({ "supplier": "hanse", "amount_min": "1000" })).await, ["K-1"]);
    assert_eq!(found(&carol, json!({ "supplier": "unknown" })).await, [""; 0]);
    assert_eq!(
        found(&mesh.client("erin").await, json!({})).await,
        ["K-1"],
        "it is shared within acme"
    );

    let got = carol.call_tool("invoices_get", json!({ "invoice_id": id })).await;
    let got = &got.json["result"]["structuredContent"];
    assert_eq!((&got["summary"], &got["findings"]), (&saved, &json!([])));
    assert_eq!(got["invoice"]["totals"]["payable_amount"], "1000.25");

    let read = carol.call("resources/read", json!({ "uri": uri })).await;
    let contents = &read.json["result"]["contents"][0];
    assert_eq!(contents["mimeType"], "application/json", "{read:?}");
    let text = contents["text"].as_str().unwrap_or_else(|| panic!("{read:?}"));
    let resource: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!((&resource["summary"], &resource["invoice"]), (&got["summary"], &got["invoice"]));

    let again = carol.call_tool("invoices_extract", json!({ "uri": uri })).await;
    assert_eq!(again.json["result"]["structuredContent"]["invoice"], got["invoice"], "{again:?}");

    let prompt = json!({ "name": "invoices_review", "arguments": { "invoice_id": id } });
    let review = carol.call("prompts/get", prompt).await;
    let messages =
        review.json["result"]["messages"].as_array().unwrap_or_else(|| panic!("{review:?}"));
    assert_eq!(messages.len(), 3);
    assert!(
        messages[1]["content"]["text"].as_str().is_some_and(|text| text.contains("1000.25 USD"))
    );
    assert_eq!(
        (&messages[2]["content"]["type"], &messages[2]["content"]["uri"]),
        (&json!("resource_link"), &json!(uri))
    );
}

#[tokio::test]
async fn an_invisible_invoice_is_indistinguishable_from_a_missing_one() {
    let mesh = TestMesh::start().await;
    let saved = save(&mesh.client("carol").await, "K-2", false).await;
    let erin = mesh.client("erin").await;
    assert_eq!(found(&erin, json!({})).await, [""; 0]);
    let hidden = erin.call_tool("invoices_get", json!({ "invoice_id": saved["invoice_id"] })).await;
    let unknown = json!({ "invoice_id": "0190c0a0-0000-7000-8000-000000000000" });
    let unknown = erin.call_tool("invoices_get", unknown).await;
    assert_eq!(hidden.json["result"]["isError"], true, "{hidden:?}");
    assert_eq!(hidden.message(), unknown.message());
    // An engineer may use no tool of the service.
    let refused = mesh.client("alice").await.call_tool("invoices_search", json!({})).await;
    assert!(refused.is_hidden(), "{refused:?}");
}
