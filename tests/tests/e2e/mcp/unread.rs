//! A tool service that has been down since the edge started: its items are not unknown.

use std::path::Path;

use drawbridge_tests::{
    Client, Edge, Reply, TcpProxy, TestMesh,
    UpstreamState::{Down, Up},
    repository,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::gateway::limits::until;

/// A call of a tool of the service that is down.
async fn get_ticket(client: &Client) -> Reply {
    client.call_tool("tickets_get", json!({ "ticket_id": "1" })).await
}

/// Completes an argument of a prompt or resource.
async fn complete(client: &Client, reference: Value) -> Reply {
    let argument = json!({ "name": "ticket_id", "value": "1" });
    client.call("completion/complete", json!({ "ref": reference, "argument": argument })).await
}

fn prompt(name: &str) -> Value {
    json!({ "type": "ref/prompt", "name": name })
}

fn resource(uri: &str) -> Value {
    json!({ "type": "ref/resource", "uri": uri })
}

/// Nothing completes it.
fn assert_no_values(reply: &Reply) {
    assert_eq!(reply.json["result"]["completion"]["values"], json!([]), "{reply:?}");
}

fn assert_retryable(reply: &Reply) {
    assert_eq!((reply.status, reply.error_code()), (StatusCode::OK, Some(-32053)), "{reply:?}");
    assert_eq!(reply.message(), "the tool service is unavailable; retry");
    assert_eq!(reply.json["error"]["data"]["retryable"], true, "{reply:?}");
    reply.assert_names_request();
}

/// Starts an edge while `tickets` is down; with a folder for its config file, it has the
/// repository's lock.
async fn with_tickets_down(folder: Option<&Path>) -> (TestMesh, TcpProxy, Edge) {
    let mesh = TestMesh::start().await;
    let tickets = TcpProxy::start(&[&mesh.mesh.state.services["tickets"]]).await;
    tickets.set(0, Down);
    let file = folder.map(|folder| folder.join("edge.toml"));
    if let Some(file) = &file {
        let lock = repository().join("policies/catalog.lock");
        std::fs::write(file, format!("[catalog]\nlock = {lock:?}\n")).expect("a file");
    }
    let url = tickets.url();
    let services = [("code", &mesh.mesh.state.services["code"]), ("tickets", &url)];
    let edge = mesh.edge(&services, |config| config.config = file).await;
    (mesh, tickets, edge)
}

#[tokio::test]
async fn an_item_of_a_service_that_was_never_up_is_unavailable_and_not_unknown() {
    let (mesh, tickets, edge) = with_tickets_down(None).await;
    let bob = edge.client(&mesh.client("bob").await);
    assert_retryable(&get_ticket(&bob).await);
    let read = json!({ "uri": "ticket://1" });
    assert_retryable(&bob.call("resources/read", read).await);
    assert_retryable(&bob.call("prompts/get", json!({ "name": "tickets_answer" })).await);
    assert_retryable(&complete(&bob, prompt("tickets_answer")).await);
    assert_retryable(&complete(&bob, resource("ticket://{ticket_id}")).await);
    assert_no_values(&complete(&bob, prompt("nothing")).await);
    let of_tickets = bob.at(&format!("{}/tickets", edge.url).parse().expect("a URL"));
    assert_ne!(of_tickets.call("tools/list", json!({})).await.status, StatusCode::NOT_FOUND);
    for name in ["ticket_get", "nothing"] {
        assert!(bob.call_tool(name, json!({})).await.is_hidden(), "{name}");
    }
    assert_eq!(get_ticket(&edge.client(&mesh.anonymous())).await.status, StatusCode::UNAUTHORIZED);

    tickets.set(0, Up);
    until("the tool service", async || {
        let reply = get_ticket(&bob).await;
        assert!(!reply.is_hidden(), "{reply:?}");
        reply.error_code().is_none()
    })
    .await;
    assert!(bob.call_tool("tickets_nothing", json!({})).await.is_hidden());
}

#[tokio::test]
async fn with_a_lock_only_a_permitted_caller_learns_that_an_item_is_unavailable() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mesh, _tickets, edge) = with_tickets_down(Some(folder.path())).await;
    let [alice, bob] = [mesh.client("alice").await, mesh.client("bob").await];
    let [alice, bob] = [edge.client(&alice), edge.client(&bob)];
    assert_retryable(&get_ticket(&bob).await);
    assert_retryable(&bob.call("resources/read", json!({ "uri": "ticket://1" })).await);
    for (client, name) in [(&alice, "tickets_get"), (&bob, "tickets_nothing")] {
        let reply = client.call_tool(name, json!({ "ticket_id": "1" })).await;
        assert!(reply.is_hidden(), "{name}: {reply:?}");
    }
    let read = alice.call("resources/read", json!({ "uri": "ticket://1" })).await;
    assert!(read.is_hidden(), "{read:?}");
    let template = resource("ticket://{ticket_id}");
    assert_retryable(&complete(&bob, template.clone()).await);
    assert_no_values(&complete(&alice, template).await);
    assert_no_values(&complete(&bob, prompt("tickets_answer")).await);
}
