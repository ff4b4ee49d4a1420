//! Sessions of the older revisions: their principals, replicas and limits.

use std::time::Duration;

use drawbridge_tests::{Client, Edge, REPLICA_SECRET, Redis, Reply, TestMesh, serve_conformance};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;
use url::Url;

async fn initialize(client: &Client) -> (Reply, Option<HeaderValue>) {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        },
    });
    let reply = client.send_body(body.to_string()).await;
    let id = reply.headers.get("mcp-session-id").cloned();
    if let Some(id) = &id {
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let reply_to_initialized = client
            .send(client.post().header("mcp-session-id", id).body(initialized.to_string()))
            .await;
        assert_eq!(reply_to_initialized.status, StatusCode::ACCEPTED);
    }
    (reply, id)
}

pub(crate) async fn open(client: &Client) -> HeaderValue {
    initialize(client).await.1.expect("a session")
}

pub(crate) async fn list(client: &Client, session: &HeaderValue) -> Reply {
    let body = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    client.send(client.post().header("mcp-session-id", session).body(body.to_string())).await
}

async fn delete(client: &Client, session: &HeaderValue) -> Reply {
    let request = client.post().header("mcp-session-id", session).build().map(|mut request| {
        *request.method_mut() = Method::DELETE;
        request
    });
    client.send_built(request).await
}

/// Two replicas of the edge that share a secret and, if there is one, Redis.
async fn replicas(mesh: &TestMesh, redis: Option<&Redis>) -> (Edge, Edge) {
    let code = mesh.mesh.state.services["code"].clone();
    let services: [(&str, &Url); 1] = [("code", &code)];
    let start = async || {
        mesh.edge(&services, |config| {
            config.secret = Some(REPLICA_SECRET.into());
            config.redis_url = redis.map(|redis| redis.url.as_str().into());
        })
        .await
    };
    (start().await, start().await)
}

#[tokio::test]
async fn a_session_continues_until_its_client_deletes_it() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let session = open(&alice).await;
    assert_eq!(
        list(&alice, &session).await.json["result"]["tools"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(delete(&alice, &session).await.status, StatusCode::NO_CONTENT);
    let ended = list(&alice, &session).await;
    assert_eq!((ended.status, ended.error_code()), (StatusCode::NOT_FOUND, Some(-32001)));
    assert_eq!(ended.json["id"], 2);
    ended.assert_names_request();
}

#[tokio::test]
async fn a_session_belongs_to_the_principal_that_opened_it() {
    let mesh = TestMesh::start().await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    let session = open(&alice).await;
    for rejected in [list(&bob, &session).await, delete(&bob, &session).await] {
        assert_eq!(rejected.status, StatusCode::NOT_FOUND, "{rejected:?}");
        assert!(!rejected.text.contains("code_search"));
        rejected.assert_names_request();
    }
    let forged = HeaderValue::from_static("c2Vzc2lvbg.c2Vzc2lvbg");
    assert_eq!(list(&alice, &forged).await.status, StatusCode::NOT_FOUND);
    assert_eq!(list(&alice, &session).await.status, StatusCode::OK);
}

#[tokio::test]
async fn any_replica_restores_a_session_from_redis() {
    let redis = Redis::start().await;
    let mesh = TestMesh::start().await;
    let (one, other) = replicas(&mesh, Some(&redis)).await;
    let alice = mesh.client("alice").await;
    let session = open(&one.client(&alice)).await;
    let on_other = list(&other.client(&alice), &session).await;
    assert_eq!(on_other.json["result"]["tools"].as_array().map(Vec::len), Some(2), "{on_other:?}");
    let bob = mesh.client("bob").await;
    assert_eq!(list(&other.client(&bob), &session).await.status, StatusCode::NOT_FOUND);

    // Without Redis a session belongs to one replica, and continues there.
    drop(redis);
    let on_one = list(&one.client(&alice), &session).await;
    assert_eq!(on_one.status, StatusCode::OK, "{on_one:?}");
    let session = open(&one.client(&alice)).await;
    assert_eq!(list(&one.client(&alice), &session).await.status, StatusCode::OK);
    assert!(!list(&other.client(&alice), &session).await.status.is_success());
}

#[tokio::test]
async fn idle_sessions_expire_and_one_principal_has_only_so_many() {
    let mesh = TestMesh::start().await;
    let code = mesh.mesh.state.services["code"].clone();
    let edge = mesh
        .edge(&[("code", &code)], |config| {
            config.sessions_per_principal_max = 2;
            config.session_idle_seconds = 1;
        })
        .await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    let (alice, bob) = (edge.client(&alice), edge.client(&bob));
    let session = open(&alice).await;
    open(&alice).await;
    let (rejected, none) = initialize(&alice).await;
    assert_eq!((rejected.status, none), (StatusCode::TOO_MANY_REQUESTS, None), "{rejected:?}");
    rejected.assert_names_request();
    open(&bob).await;

    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(list(&alice, &session).await.status, StatusCode::NOT_FOUND);
    open(&alice).await;
}

#[tokio::test]
async fn a_response_without_progress_is_json_and_a_stream_is_readable_by_older_clients() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let (opened, session) = initialize(&alice).await;
    let session = session.expect("a session");
    let listed = list(&alice, &session).await;
    for short in [&opened, &listed] {
        assert_eq!(short.headers["content-type"], "application/json", "{short:?}");
    }
    let call = json!({
        "jsonrpc": "2.0", "id": "x", "method": "tools/call",
        "params": {
            "name": "test_slow_work", "arguments": { "milliseconds": 100 },
            "_meta": { "progressToken": 1 },
        },
    });
    let in_session = || alice.post().header("mcp-session-id", &session).body(call.to_string());
    let streamed = alice.send(in_session()).await;
    assert_eq!(streamed.headers["content-type"], "text/event-stream");
    assert_eq!((&streamed.json["id"], streamed.message()), (&json!("x"), "worked"));
    for line in streamed.text.lines() {
        assert!(!line.starts_with("retry:") && line.trim_end() != "data:", "{streamed:?}");
    }
    // A client that accepts JSON alone receives JSON.
    let plain = in_session().build().map(|mut request| {
        request.headers_mut().insert("accept", HeaderValue::from_static("application/json"));
        request
    });
    let plain = alice.send_built(plain).await;
    assert_eq!(plain.headers["content-type"], "application/json", "{plain:?}");
    assert_eq!(plain.message(), "worked");
}

#[tokio::test]
async fn a_client_may_open_a_stream_unless_it_accepts_json_alone() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let session = open(&alice).await;
    for (accept, status) in [
        (Some("*/*"), StatusCode::OK),
        (Some("text/event-stream"), StatusCode::OK),
        (None, StatusCode::OK),
        (Some("application/json"), StatusCode::NOT_ACCEPTABLE),
    ] {
        let request = alice.post().header("mcp-session-id", &session).build().map(|mut request| {
            *request.method_mut() = Method::GET;
            request.headers_mut().remove("accept");
            if let Some(accept) = accept {
                request.headers_mut().insert("accept", HeaderValue::from_static(accept));
            }
            request
        });
        let response =
            reqwest::Client::new().execute(request.expect("a request")).await.expect("a response");
        assert_eq!(response.status(), status, "{accept:?}");
    }
    // A stream needs a session.
    let without_session = alice.post().build().map(|mut request| {
        *request.method_mut() = Method::GET;
        request
    });
    let without_session = alice.send_built(without_session).await;
    assert_eq!(
        (without_session.status, &without_session.headers["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("POST, GET, DELETE"))
    );
}

#[tokio::test]
async fn a_silent_call_becomes_a_stream_with_keep_alive_comments() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh
        .conformance(|config| {
            config.streams.stream_quiet_ms = 50;
            config.streams.stream_keep_alive_ms = 100;
        })
        .await;
    let alice = edge.client(&mesh.client("alice").await);
    let session = open(&alice).await;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "test_slow_work", "arguments": { "milliseconds": 1000 } },
    });
    for in_session in [true, false] {
        let request = alice.post().body(call.to_string());
        let request = if in_session { request.header("mcp-session-id", &session) } else { request };
        let reply = alice.send(request).await;
        assert_eq!(reply.headers["content-type"], "text/event-stream", "{reply:?}");
        assert!(reply.text.lines().any(|line| line == ":"), "{reply:?}");
        // Some parsers would dispatch an empty event for an empty line after it.
        assert!(!reply.text.contains(":\n\n"), "{reply:?}");
        assert_eq!(reply.message(), "worked", "{reply:?}");
    }
}
