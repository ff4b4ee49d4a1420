//! The sample helpdesk, as `drawbridge up` starts it.

use drawbridge_tests::TestMesh;
use serde_json::{Value, json};

use super::result;

#[tokio::test]
async fn support_finds_a_ticket_and_reads_it_by_tool_and_as_a_resource() {
    let mesh = TestMesh::start().await;
    let bob = mesh.client("bob").await;
    let expected = ["tickets_get", "tickets_reply", "tickets_search", "tickets_summarize"];
    assert_eq!(bob.tools().await, expected);

    let query = json!({ "query": "vpn", "state": "open", "created_from": "2026-03-01" });
    let found = bob.call_tool("tickets_search", query).await;
    let tickets = result(&found)["tickets"].as_array().expect("tickets");
    let [ticket] = &tickets[..] else { panic!("{found:?}") };
    assert_eq!((&ticket["ticket_id"], &ticket["priority"]), (&json!("101"), &json!("3 high")));
    assert_eq!(ticket["assignee"]["login"], "olive.marmalade");

    let whole = bob.call_tool("tickets_get", json!({ "ticket_id": "101" })).await;
    let whole = result(&whole);
    assert_eq!(whole["ticket"]["customer"]["email"], "rufus.teapot@acme.example");
    let articles = whole["articles"].as_array().expect("articles");
    assert_eq!(articles.len(), 5);
    assert_eq!((&articles[1]["internal"], &articles[1]["side"]), (&json!(true), &json!("Agent")));
    let html = articles[2]["text"].as_str().expect("a text");
    assert!(
        html.contains("switch to the profile Acme Remote (compat) in") && !html.contains('<'),
        "{html}"
    );

    let read = bob.call("resources/read", json!({ "uri": "ticket://101" })).await;
    let contents = &read.json["result"]["contents"][0];
    assert_eq!(
        (&contents["uri"], &contents["mimeType"]),
        (&json!("ticket://101"), &json!("application/json"))
    );
    let resource: Value =
        serde_json::from_str(contents["text"].as_str().expect("a text")).expect("JSON");
    assert_eq!(
        (&resource["ticket"], &resource["articles"]),
        (&whole["ticket"], &whole["articles"])
    );
}

#[tokio::test]
async fn pages_follow_one_another() {
    let mesh = TestMesh::start().await;
    let bob = mesh.client("bob").await;
    let first = bob.call_tool("tickets_search", json!({ "page_size": 15 })).await;
    let token = &result(&first)["next_page_token"];
    let second =
        bob.call_tool("tickets_search", json!({ "page_size": 15, "page_token": token })).await;
    let ids = |reply| {
        let tickets = result(reply)["tickets"].as_array().expect("tickets").iter();
        tickets
            .map(|ticket| ticket["ticket_id"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    let (first, last) = (ids(&first), ids(&second));
    assert_eq!((first.len(), last.len()), (15, 7));
    assert!(first.iter().all(|id| !last.contains(id)));
    assert_eq!(result(&second)["next_page_token"], "");
    let other = bob.call_tool(
        "tickets_search",
        json!({ "state": "open", "page_size": 15, "page_token": token }),
    );
    let other = other.await;
    assert!(other.message().contains("`page_token`: does not belong to this search"), "{other:?}");
}

#[tokio::test]
async fn each_tenant_sees_its_own_helpdesk() {
    let mesh = TestMesh::start().await;
    let (bob, frank) = (mesh.client("bob").await, mesh.client("frank").await);
    let title = async |client: &drawbridge_tests::Client| {
        let reply = client.call_tool("tickets_get", json!({ "ticket_id": "101" })).await;
        result(&reply)["ticket"]["title"].clone()
    };
    assert_eq!(title(&bob).await, "VPN drops every ten minutes since the laptop update");
    assert_eq!(title(&frank).await, "Umbrella stands for 40 hotel lobbies");
    // A ticket of another tenant.
    let missing = frank.call_tool("tickets_get", json!({ "ticket_id": "122" })).await;
    assert!(missing.message().contains("no such ticket"), "{missing:?}");
    let none = frank.call_tool("tickets_search", json!({ "query": "vpn" })).await;
    assert_eq!(result(&none)["tickets"], json!([]));
}

#[tokio::test]
async fn callers_outside_of_support_have_no_access_to_tickets() {
    let mesh = TestMesh::start().await;
    for user in ["alice", "carol", "dave"] {
        let client = mesh.client(user).await;
        assert!(!client.tools().await.iter().any(|tool| tool.starts_with("tickets_")), "{user}");
        let reply = json!({ "ticket_id": "101", "text": "x", "idempotency_key": "key-0001" });
        for (tool, arguments) in [
            ("tickets_search", json!({})),
            ("tickets_get", json!({ "ticket_id": "101" })),
            ("tickets_summarize", json!({ "ticket_id": "101" })),
            ("tickets_reply", reply),
        ] {
            let refused = client.call_tool(tool, arguments).await;
            assert!(refused.is_hidden(), "{user} {tool}: {refused:?}");
        }
        let refused = client.call("resources/read", json!({ "uri": "ticket://101" })).await;
        assert!(refused.is_hidden(), "{user}: {refused:?}");
    }
}

#[tokio::test]
async fn every_tool_and_argument_has_a_description_and_hints() {
    let mesh = TestMesh::start().await;
    let listed = mesh.client("bob").await.call("tools/list", json!({})).await;
    let tools = listed.json["result"]["tools"].as_array().expect("tools");
    let tool = |name: &str| tools.iter().find(|tool| tool["name"] == name).expect("a tool");
    for tool in tools {
        assert!(tool["description"].as_str().is_some_and(|text| text.len() > 80), "{tool}");
        for (name, property) in tool["inputSchema"]["properties"].as_object().expect("properties") {
            assert!(property["description"].is_string(), "{name}: {tool}");
        }
    }
    let reply = tool("tickets_reply");
    assert_eq!(reply["inputSchema"]["required"], json!(["ticket_id", "text", "idempotency_key"]));
    assert_eq!(reply["inputSchema"]["properties"]["text"]["maxLength"], 20000);
    let hints = &reply["annotations"];
    let hints = ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"]
        .map(|hint| &hints[hint]);
    assert_eq!(hints, [&json!(false), &json!(false), &json!(false), &json!(true)]);
    let summarize = &tool("tickets_summarize")["inputSchema"]["properties"];
    let names: Vec<_> = summarize.as_object().expect("properties").keys().collect();
    assert_eq!(names, ["ticket_id", "max_sentences"], "the input responses are not arguments");
}
