//! Changes of resources, told to whoever subscribes.

use std::time::Duration;

use drawbridge_tests::{Client, TestMesh, serve_conformance};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

const UPDATED: &str = "notifications/resources/updated";
const WATCHED: &str = "test://watched-resource";

/// An event stream, read as it comes.
struct Stream(reqwest::Response);

impl Stream {
    async fn open(request: reqwest::Result<reqwest::Request>) -> Self {
        let response =
            reqwest::Client::new().execute(request.expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        Self(response)
    }

    /// Reads until this stands in the stream.
    async fn hear(&mut self, wanted: &str) {
        let mut heard = String::new();
        while !heard.contains(wanted) {
            let next = tokio::time::timeout(Duration::from_secs(10), self.0.chunk()).await;
            let next = next.unwrap_or_else(|_| panic!("{wanted} is not told: {heard}"));
            heard.push_str(&String::from_utf8_lossy(&next.expect("a chunk").expect("more")));
        }
    }

    /// Reads to the end of the stream.
    async fn end(&mut self) {
        let reading = async { while let Ok(Some(_)) = self.0.chunk().await {} };
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("a stream that ends");
    }

    /// Whether nothing of this comes for a while.
    async fn is_silent_on(&mut self, unwanted: &str) -> bool {
        let heard = async {
            let mut heard = String::new();
            while let Ok(Some(next)) = self.0.chunk().await {
                heard.push_str(&String::from_utf8_lossy(&next));
                if heard.contains(unwanted) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(500), heard).await.is_err()
    }
}

async fn in_session(client: &Client, session: &HeaderValue, method: &str) {
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": method, "params": { "uri": WATCHED } });
    let reply =
        client.send(client.post().header("mcp-session-id", session).body(body.to_string())).await;
    assert_eq!(reply.json["result"], json!({}), "{method}: {reply:?}");
}

#[tokio::test]
async fn a_session_is_told_of_changes_from_subscribe_to_unsubscribe() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        },
    });
    let opened = alice.send_body(initialize.to_string()).await;
    let session = opened.headers["mcp-session-id"].clone();
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    alice.send(alice.post().header("mcp-session-id", &session).body(initialized.to_string())).await;
    let stream = alice.post().header("mcp-session-id", &session).build().map(|mut request| {
        *request.method_mut() = Method::GET;
        request
    });
    let mut stream = Stream::open(stream).await;

    in_session(&alice, &session, "resources/subscribe").await;
    stream.hear(UPDATED).await;
    stream.hear(WATCHED).await;
    in_session(&alice, &session, "resources/unsubscribe").await;
    // What was under way may still come.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let _ = stream.is_silent_on("nothing at all").await;
    assert!(stream.is_silent_on(UPDATED).await);

    let unwatched = alice.call("resources/subscribe", json!({ "uri": "test://static-text" })).await;
    assert_eq!(unwatched.error_code(), Some(-32602), "{unwatched:?}");
    assert!(unwatched.message().contains("cannot be watched"));
}

/// Subscribes without a session, and hears that it is so.
async fn subscribe(client: &Client) -> Stream {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
        "params": {
            "notifications": { "resourceSubscriptions": [WATCHED] },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let request = client.post().body(body.to_string()).build().map(|mut request| {
        let headers = request.headers_mut();
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        headers.insert("mcp-method", HeaderValue::from_static("subscriptions/listen"));
        request
    });
    let mut stream = Stream::open(request).await;
    stream.hear("notifications/subscriptions/acknowledged").await;
    stream
}

#[tokio::test]
async fn a_subscription_without_a_session_is_told_of_changes() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let mut stream = subscribe(&edge.client(&mesh.client("alice").await)).await;
    stream.hear(UPDATED).await;
    stream.hear(UPDATED).await;
}

#[tokio::test]
async fn who_may_no_longer_read_a_resource_is_told_no_more_of_its_changes() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let mut alice = subscribe(&edge.client(&mesh.client("alice").await)).await;
    let mut bob = subscribe(&edge.client(&mesh.client("bob").await)).await;
    alice.hear(UPDATED).await;
    bob.hear(UPDATED).await;
    mesh.edit_policy(
        "test.cedar",
        "permit (principal,",
        r#"permit (principal in Group::"support","#,
    );
    alice.end().await;
    bob.hear(UPDATED).await;
}
