//! The binding of sessions to their clients, and the end of sessions and their streams.

use std::{fs, time::Duration};

use drawbridge_tests::{
    Client, Edge, REPLICA_SECRET, Redis, Reply, TestIssuer, TestMesh, conformance::Conformance,
    serve_conformance,
};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::mcp::sessions::{list, open};

mod stream_ends;

const WATCHED: &str = "test://watched-resource";
/// The time limit of a single step.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// An event stream, read as it arrives.
pub(crate) struct Stream(pub(super) reqwest::Response);

impl Stream {
    pub(crate) async fn open(request: reqwest::Result<reqwest::Request>) -> Self {
        let response =
            reqwest::Client::new().execute(request.expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        Self(response)
    }

    /// The first message that contains this text.
    pub(crate) async fn until(&mut self, wanted: &str) -> Value {
        let mut text = String::new();
        loop {
            let line =
                text.lines().find(|line| line.starts_with("data: ") && line.contains(wanted));
            if let Some(message) =
                line.and_then(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            {
                return message;
            }
            let next = tokio::time::timeout(STEP_TIMEOUT, self.0.chunk()).await;
            let next = next.unwrap_or_else(|_| panic!("{wanted} does not arrive: {text}"));
            let next = next
                .expect("a chunk")
                .unwrap_or_else(|| panic!("the stream ended without {wanted}: {text}"));
            text.push_str(&String::from_utf8_lossy(&next));
        }
    }

    /// The rest of the stream, until it ends.
    pub(super) async fn end(&mut self) -> String {
        let mut text = String::new();
        let reading = async {
            while let Ok(Some(next)) = self.0.chunk().await {
                text.push_str(&String::from_utf8_lossy(&next));
            }
        };
        tokio::time::timeout(STEP_TIMEOUT, reading).await.expect("a stream that ends");
        text
    }
}

pub(super) fn request(
    client: &Client,
    method: Method,
    session: &HeaderValue,
) -> reqwest::Result<reqwest::Request> {
    client.post().header("mcp-session-id", session).build().map(|mut request| {
        *request.method_mut() = method;
        request
    })
}

pub(super) async fn send(client: &Client, session: &HeaderValue, message: &Value) -> Reply {
    client.send(client.post().header("mcp-session-id", session).body(message.to_string())).await
}

/// Opens a session of a client that supports elicitation.
pub(crate) async fn initialize(client: &Client) -> (Reply, Option<HeaderValue>) {
    let reply = client
        .call(
            "initialize",
            json!({
                "protocolVersion": "2025-11-25",
                "capabilities": { "elicitation": {} },
                "clientInfo": { "name": "test", "version": "1" },
            }),
        )
        .await;
    let session = reply.headers.get("mcp-session-id").cloned();
    (reply, session)
}

/// Calls a tool in a session and returns the stream of its response.
pub(super) async fn begin(
    client: &Client,
    session: &HeaderValue,
    tool: &str,
    arguments: Value,
) -> Stream {
    let call = json!({
        "jsonrpc": "2.0", "id": "a call", "method": "tools/call",
        "params": { "name": tool, "arguments": arguments, "_meta": { "progressToken": 1 } },
    });
    Stream::open(client.post().header("mcp-session-id", session).body(call.to_string()).build())
        .await
}

/// Subscribes without a session (2026-07-28).
pub(super) fn listen(client: &Client) -> reqwest::Result<reqwest::Request> {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
        "params": {
            "notifications": { "resourceSubscriptions": [WATCHED] },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    client.post().body(body.to_string()).build().map(|mut request| {
        let headers = request.headers_mut();
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        headers.insert("mcp-method", HeaderValue::from_static("subscriptions/listen"));
        request
    })
}

/// A mesh that trusts the test's issuer, with a service that engineers may use.
pub(super) struct World {
    issuer: TestIssuer,
    pub(super) mesh: TestMesh,
    pub(super) edge: Edge,
    pub(super) service: (Conformance, drawbridge_mesh::HostedService),
}

impl World {
    pub(super) async fn start(change: impl FnOnce(&mut drawbridge_edge::Config)) -> Self {
        let issuer = TestIssuer::start().await;
        let table = format!(
            "[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\ntenants = [\"acme\"]\n",
            issuer.name()
        );
        let mesh = TestMesh::with(move |config| {
            serve_conformance(config);
            let file = config.policies.join("issuers.toml");
            fs::write(&file, table).expect("a file");
            config.issuers = Some(file);
            let policy = config.policies.join("test.cedar");
            let text = fs::read_to_string(&policy).expect("a policy");
            let text = text.replacen(
                "permit (principal,",
                r#"permit (principal in Group::"engineering","#,
                1,
            );
            fs::write(&policy, text).expect("a policy");
        })
        .await;
        let (service, hosted, edge) = mesh.conformance(change).await;
        Self { issuer, mesh, edge, service: (service, hosted) }
    }

    /// A client of an engineer whose token also has these claims.
    pub(super) fn client(&self, claims: Value) -> Client {
        let mut all = self.issuer.claims(self.mesh.mesh.mcp_url.as_str());
        all.as_object_mut().expect("claims").extend(claims.as_object().expect("claims").clone());
        self.edge.client(&self.mesh.client_with(&self.issuer.sign(&self.issuer.header(), &all)))
    }
}

/// The attack: a token of the same user for another client, tenant, endpoint or kind, or without
/// the permitted group, answered an elicitation, cancelled the call, read the session's stream and
/// ended the session.
#[tokio::test]
async fn messages_to_a_session_are_accepted_only_with_a_token_that_may_make_the_call() {
    let world = World::start(|_| {}).await;
    let erin = world.client(json!({}));
    let session = initialize(&erin).await.1.expect("a session");
    let mut call = begin(&erin, &session, "test_elicitation", json!({ "message": "Pay?" })).await;
    let elicitation = call.until("elicitation/create").await;
    let content = json!({ "username": "mallory", "email": "m@example.com" });
    let answer = |content: &Value| {
        let result = json!({ "action": "accept", "content": content });
        json!({ "jsonrpc": "2.0", "id": elicitation["id"], "result": result })
    };
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "a call" },
    });

    let mut below = world.edge.url.clone();
    below.set_path("/mcp/test");
    let others = [
        ("another client", world.client(json!({ "client_id": "another" }))),
        ("another tenant", world.client(json!({ "tenant": "acme" }))),
        ("another user", world.client(json!({ "sub": "mallory" }))),
        ("a workload of the same name", world.client(json!({ "gty": "client-credentials" }))),
        ("another endpoint", erin.at(&below)),
    ];
    for (who, client) in &others {
        let mut replies = vec![
            send(client, &session, &answer(&content)).await,
            send(client, &session, &cancel).await,
            list(client, &session).await,
        ];
        for method in [Method::GET, Method::DELETE] {
            replies.push(client.send_built(request(client, method, &session)).await);
        }
        for refused in replies {
            assert_eq!(
                (refused.status, refused.error_code()),
                (StatusCode::NOT_FOUND, Some(-32001)),
                "{who}"
            );
            refused.assert_names_request();
        }
    }
    // The same client without permission for the tool: the tool is hidden, and so is its
    // elicitation.
    let intern = world.client(json!({ "groups": ["interns"] }));
    for message in [&answer(&content), &cancel] {
        assert_eq!(send(&intern, &session, message).await.status, StatusCode::ACCEPTED);
    }

    let consent = json!({ "username": "erin", "email": "erin@example.com" });
    assert_eq!(send(&erin, &session, &answer(&consent)).await.status, StatusCode::ACCEPTED);
    let result = call.until("result").await;
    let text = result["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(text.contains("action=accept") && text.contains("erin@example.com"), "{result}");
    assert_eq!(list(&erin, &session).await.status, StatusCode::OK);
}

/// The attack: resuming a call's stream with a token without permission for the call revealed its
/// events.
#[tokio::test]
async fn a_stream_is_resumed_only_by_a_caller_with_permission_for_its_call() {
    let world = World::start(|_| {}).await;
    let erin = world.client(json!({}));
    let session = initialize(&erin).await.1.expect("a session");
    let mut call = begin(&erin, &session, "test_slow_work", json!({ "milliseconds": 300 })).await;
    let chunk = call.0.chunk().await.expect("a chunk").expect("an event");
    let text = String::from_utf8_lossy(&chunk).into_owned();
    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    drop(call);

    let resume = |client: &Client, id: &str| {
        let id = HeaderValue::from_str(id).expect("an id");
        request(client, Method::GET, &session).map(|mut request| {
            request.headers_mut().insert("last-event-id", id);
            request
        })
    };
    let intern = world.client(json!({ "groups": ["interns"] }));
    let refused = intern.send_built(resume(&intern, &id)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    assert!(!refused.text.contains("step") && !refused.text.contains("worked"), "{refused:?}");
    let mut again = Stream::open(resume(&erin, &id)).await;
    assert_eq!(again.until("result").await["result"]["content"][0]["text"], "worked");
    // Only events of this session can be resumed.
    let other = initialize(&erin).await.1.expect("a session");
    for (session, id) in
        [(&session, "nonsense"), (&session, "0000000000000000-1"), (&other, id.as_str())]
    {
        let request = request(&erin, Method::GET, session).map(|mut request| {
            request
                .headers_mut()
                .insert("last-event-id", HeaderValue::from_str(id).expect("an id"));
            request
        });
        let refused = erin.send_built(request).await;
        assert_eq!(
            (refused.status, refused.error_code()),
            (StatusCode::BAD_REQUEST, Some(-32600)),
            "{id}"
        );
    }
}

/// The attack: one principal opened an unlimited number of streams and sessions.
#[tokio::test]
async fn streams_and_sessions_are_bounded_per_principal_and_in_total() {
    let world = World::start(|config| {
        config.sessions_max = 4;
        config.sessions_per_principal_max = 2;
        config.streams.streams_max = 3;
        config.streams.streams_per_principal_max = 2;
    })
    .await;
    let users: Vec<_> = ["a", "b", "c"].map(|sub| world.client(json!({ "sub": sub }))).into();
    let mut sessions = Vec::new();
    for user in &users[..2] {
        for _ in 0..2 {
            sessions.push(initialize(user).await.1.expect("a session"));
        }
    }
    let full = initialize(&users[2]).await.0;
    assert_eq!(
        (full.status, full.error_code()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(-32053)),
        "{full:?}"
    );
    let refused = initialize(&users[0]).await.0;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{refused:?}");

    let first = Stream::open(request(&users[0], Method::GET, &sessions[0])).await;
    let _second = Stream::open(listen(&users[0])).await;
    for again in [request(&users[0], Method::GET, &sessions[1]), listen(&users[0])] {
        let refused = users[0].send_built(again).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{refused:?}");
        refused.assert_names_request();
    }
    let _third = Stream::open(request(&users[1], Method::GET, &sessions[2])).await;
    let full = users[1].send_built(listen(&users[1])).await;
    assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE, "{full:?}");
    assert!(full.headers.contains_key("retry-after"));
    // A closed stream releases its permit.
    drop(first);
    let opened = async {
        loop {
            let request = listen(&users[1]).expect("a request");
            let response = reqwest::Client::new().execute(request).await.expect("an answer");
            if response.status() == StatusCode::OK {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(STEP_TIMEOUT, opened).await.expect("a free permit");
}

/// The attack: a session ended by its client stayed open with its streams on every other replica.
#[tokio::test]
async fn a_session_that_ends_on_one_replica_ends_on_all() {
    let redis = Redis::start().await;
    let mesh = TestMesh::start().await;
    let code = mesh.mesh.state.services["code"].clone();
    let replica = async || {
        mesh.edge(&[("code", &code)], |config| {
            config.secret = Some(REPLICA_SECRET.into());
            config.redis_url = Some(redis.url.as_str().into());
        })
        .await
    };
    let alice = mesh.client("alice").await;
    let replicas = (replica().await, replica().await);
    let (one, other) = (replicas.0.client(&alice), replicas.1.client(&alice));
    let session = open(&one).await;
    assert_eq!(list(&other, &session).await.status, StatusCode::OK);
    let mut stream = Stream::open(request(&other, Method::GET, &session)).await;
    let ended = one.send_built(request(&one, Method::DELETE, &session)).await;
    assert_eq!((ended.status, ended.text.as_str()), (StatusCode::NO_CONTENT, ""));
    for replica in [&one, &other] {
        let reply = list(replica, &session).await;
        assert_eq!(
            (reply.status, reply.error_code()),
            (StatusCode::NOT_FOUND, Some(-32001)),
            "{reply:?}"
        );
        assert_eq!(reply.json["id"], 2);
    }
    stream.end().await;
    // The session cannot be ended twice.
    let again = other.send_built(request(&other, Method::DELETE, &session)).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}
