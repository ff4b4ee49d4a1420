//! Change notifications for subscribed resources.

use std::time::Duration;

use drawbridge_tests::{Client, TestMesh, serve_conformance};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

const UPDATED: &str = "notifications/resources/updated";
const WATCHED: &str = "test://watched-resource";

/// An open event stream.
struct OpenStream(reqwest::Response);

impl OpenStream {
    async fn open(request: reqwest::Result<reqwest::Request>) -> Self {
        let response =
            reqwest::Client::new().execute(request.expect("a request")).await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        Self(response)
    }

    /// Reads until the stream contains this text.
    async fn read_until(&mut self, expected: &str) {
        let mut received = String::new();
        while !received.contains(expected) {
            let next = tokio::time::timeout(Duration::from_secs(10), self.0.chunk()).await;
            let next = next.unwrap_or_else(|_| panic!("{expected} did not arrive: {received}"));
            received.push_str(&String::from_utf8_lossy(&next.expect("a chunk").expect("more")));
        }
    }

    /// Reads to the end of the stream.
    async fn end(&mut self) {
        let reading = async { while let Ok(Some(_)) = self.0.chunk().await {} };
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("a stream that ends");
    }

    /// Whether this text does not arrive within half a second.
    async fn is_silent_on(&mut self, unwanted: &str) -> bool {
        let received = async {
            let mut received = String::new();
            while let Ok(Some(next)) = self.0.chunk().await {
                received.push_str(&String::from_utf8_lossy(&next));
                if received.contains(unwanted) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(500), received).await.is_err()
    }
}

async fn in_session(client: &Client, session: &HeaderValue, method: &str) {
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": method, "params": { "uri": WATCHED } });
    let reply =
        client.send(client.post().header("mcp-session-id", session).body(body.to_string())).await;
    assert_eq!(reply.json["result"], json!({}), "{method}: {reply:?}");
}

#[tokio::test]
async fn a_session_is_notified_of_changes_from_subscribe_to_unsubscribe() {
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
    let mut stream = OpenStream::open(stream).await;

    in_session(&alice, &session, "resources/subscribe").await;
    stream.read_until(UPDATED).await;
    stream.read_until(WATCHED).await;
    in_session(&alice, &session, "resources/unsubscribe").await;
    // Notifications in flight may still arrive.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let _ = stream.is_silent_on("nothing at all").await;
    assert!(stream.is_silent_on(UPDATED).await);

    let unwatched = alice.call("resources/subscribe", json!({ "uri": "test://static-text" })).await;
    assert_eq!(unwatched.error_code(), Some(-32602), "{unwatched:?}");
    assert!(unwatched.message().contains("cannot be watched"));
}

/// Subscribes without a session, and waits for the acknowledgement.
async fn subscribe(client: &Client) -> OpenStream {
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
    let mut stream = OpenStream::open(request).await;
    stream.read_until("notifications/subscriptions/acknowledged").await;
    stream
}

#[tokio::test]
async fn a_subscription_without_a_session_is_notified_of_changes() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let mut stream = subscribe(&edge.client(&mesh.client("alice").await)).await;
    stream.read_until(UPDATED).await;
    stream.read_until(UPDATED).await;
}

#[tokio::test]
async fn a_subscription_ends_when_its_caller_may_no_longer_read_the_resource() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let mut alice = subscribe(&edge.client(&mesh.client("alice").await)).await;
    let mut bob = subscribe(&edge.client(&mesh.client("bob").await)).await;
    alice.read_until(UPDATED).await;
    bob.read_until(UPDATED).await;
    mesh.edit_policy(
        "test.cedar",
        "permit (principal,",
        r#"permit (principal in Group::"support","#,
    );
    alice.end().await;
    bob.read_until(UPDATED).await;
}
