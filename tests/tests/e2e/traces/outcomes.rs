//! The whole tree of a call, in each revision and for each outcome.

use std::{collections::BTreeMap, fs};

use drawbridge_tests::{
    Client, Collector, Edge, Reply, TestMesh, cached::Cached, repository, serve_cached,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::tree::tree;
use crate::gateway::limits::{metric, until};

/// The revisions, two with sessions and one without.
const REVISIONS: [&str; 3] = ["2025-06-18", "2025-11-25", "2026-07-28"];
const STATELESS: &str = "2026-07-28";
/// One call runs at a time, so that a second one queues.
const CONFIG: &str = "[concurrency]\ncalls_per_service = 1\nwait_ms = 60000\n\
                      [[guard]]\nkind = \"strip\"\nonly = [\"cached_private4\"]\n";
const FORBIDDEN: &str = r#"
@id("no-look")
forbid (principal, action == Action::"cached_look", resource)
when { context.input.about == "forbidden" };
"#;

/// Requests that prepare others.
const PREPARATION: [&str; 4] = ["initialize", "discover", "first", "cancel"];

/// A client of one edge in one revision.
struct RevisionClient<'a> {
    revision: &'static str,
    client: Client,
    session: Option<HeaderValue>,
    traces: &'a mut Traces,
}

/// The traces that the test has begun: what each is about, the revision, and its id.
#[derive(Default)]
struct Traces(Vec<(String, &'static str, String)>);

impl Traces {
    /// A new trace. Returns its `traceparent`.
    fn begin(&mut self, about: &str, revision: &'static str) -> String {
        let id = format!("{:032x}", 0x1000 + self.0.len());
        self.0.push((about.to_owned(), revision, id.clone()));
        format!("00-{id}-00000000000000aa-01")
    }
}

impl RevisionClient<'_> {
    /// Opens a session where the revision has them. The edge then knows the token.
    async fn open<'a>(
        client: Client,
        revision: &'static str,
        traces: &'a mut Traces,
    ) -> RevisionClient<'a> {
        let mut opened = RevisionClient { revision, client, session: None, traces };
        if revision == STATELESS {
            let reply = opened.send("discover", "server/discover", json!({})).await;
            assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
            return opened;
        }
        let params = json!({
            "protocolVersion": revision, "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let reply = opened.send("initialize", "initialize", params).await;
        opened.session = reply.headers.get("mcp-session-id").cloned();
        assert!(opened.session.is_some(), "{reply:?}");
        opened
    }

    fn request(&mut self, about: &str, method: &str, mut params: Value) -> reqwest::Request {
        let parent = self.traces.begin(about, self.revision);
        let is_stateless = self.revision == STATELESS;
        if is_stateless {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": STATELESS,
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        if !method.starts_with("notifications/") {
            message["id"] = json!(about);
        }
        let request = self.client.post().header("traceparent", parent).body(message.to_string());
        let mut request = request.build().expect("a request");
        let headers: &mut HeaderMap = request.headers_mut();
        headers.insert("mcp-protocol-version", HeaderValue::from_static(self.revision));
        if method == "initialize" {
            headers.remove("mcp-protocol-version");
        }
        if is_stateless {
            headers.insert("mcp-method", method.parse().expect("a header"));
            if let Some(name) = params["name"].as_str() {
                headers.insert("mcp-name", name.parse().expect("a header"));
            }
        }
        if let Some(session) = &self.session {
            headers.insert("mcp-session-id", session.clone());
        }
        request
    }

    async fn send(&mut self, about: &str, method: &str, params: Value) -> Reply {
        let request = self.request(about, method, params);
        self.client.send_built(Ok(request)).await
    }

    async fn call(&mut self, about: &str, tool: &str, arguments: Value) -> Reply {
        self.send(about, "tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Starts a call, without waiting for its response.
    fn start(&mut self, about: &str, tool: &str, arguments: Value) -> tokio::task::JoinHandle<()> {
        let params = json!({ "name": tool, "arguments": arguments });
        let (request, client) = (self.request(about, "tools/call", params), self.client.clone());
        tokio::spawn(async move { drop(client.try_send(request).await) })
    }
}

async fn running(edge: &Edge, calls: &str) {
    until("a call", async || {
        metric(edge, r#"edge_calls_running{service="cached"}"#).await.as_deref() == Some(calls)
    })
    .await;
}

/// Makes calls with every outcome that one edge has.
async fn make_calls(client: &mut RevisionClient<'_>, service: &Cached, edge: &Edge) {
    let revision = client.revision;
    let about = |what: &str| json!({ "about": format!("{what} {revision}") });
    let outcome = |what: &str| json!({ "outcome": what });
    let text = format!("ok {revision}");
    for case in ["success", "cached"] {
        let reply = client.call(case, "cached_try", outcome(&text)).await;
        assert_eq!(reply.json["result"]["content"][0]["text"], text, "{reply:?}");
    }
    let error = client.call("tool error", "cached_try", outcome("error")).await;
    assert_eq!(error.json["result"]["isError"], true, "{error:?}");
    let denied = client.call("denied", "cached_look", json!({ "about": "forbidden" })).await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN, "{denied:?}");
    denied.assert_names_request();
    let retried = client.call("retried", "cached_private1", about("unavailable once")).await;
    assert!(retried.json["result"].is_object(), "{retried:?}");
    let guarded = client.call("guarded", "cached_private4", about("guarded")).await;
    assert!(guarded.json["result"].is_object(), "{guarded:?}");

    let first = client.start("first", "cached_private2", about("held"));
    running(edge, "1").await;
    let second = client.start("queued", "cached_private3", about("queued"));
    until("a queued call", async || {
        metric(edge, r#"edge_calls_waiting{service="cached"}"#).await.as_deref() == Some("1")
    })
    .await;
    service.release(1);
    first.await.expect("the first call");
    second.await.expect("the queued call");

    let held = client.start("cancelled", "cached_private5", about("held"));
    running(edge, "1").await;
    if revision == STATELESS {
        held.abort();
    } else {
        let cancel = json!({ "requestId": "cancelled" });
        let reply = client.send("cancel", "notifications/cancelled", cancel).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
        held.await.expect("the cancelled call");
    }
    running(edge, "0").await;
}

#[tokio::test]
async fn every_outcome_of_a_call_is_one_tree_in_every_revision() {
    let (collector, url) = Collector::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("edge.toml");
    fs::write(&config, CONFIG).expect("a file");
    let mesh = TestMesh::with(|config| {
        serve_cached(config);
        let policies = config.policies.join("cached.cedar");
        let permitted = fs::read_to_string(&policies).expect("a policy");
        fs::write(policies, permitted + FORBIDDEN).expect("a policy");
        config.telemetry.otlp_endpoint = Some(url);
    })
    .await;
    let (service, hosted, url) = mesh.cached().await;
    let edge = mesh.edge(&[("cached", &url)], |edge| edge.config = Some(config)).await;
    let auth = mesh.auth(|_| {});
    let second_auth = auth.start().await;
    let second_edge =
        mesh.edge(&[("cached", &url)], |edge| edge.auth_urls = vec![auth.url.clone().into()]).await;

    let mut traces = Traces::default();
    let mut clients = Vec::new();
    for revision in REVISIONS {
        let alice = mesh.client("alice").await;
        let mut client = RevisionClient::open(edge.client(&alice), revision, &mut traces).await;
        make_calls(&mut client, &service, &edge).await;
        let client = second_edge.client(&alice);
        let session = RevisionClient::open(client.clone(), revision, &mut traces).await.session;
        clients.push((revision, client, session));
    }
    second_auth.stop().await;
    for (revision, client, session) in clients {
        let mut client = RevisionClient { revision, client, session, traces: &mut traces };
        let reply = client.call("503", "cached_try", json!({ "outcome": "ok" })).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{reply:?}");
        reply.assert_names_request();
    }
    for hosted in [edge.hosted, second_edge.hosted, hosted] {
        hosted.stop().await;
    }
    mesh.stop().await;

    let (expected, mut wrong) = (expected(), String::new());
    for (about, revision, id) in &traces.0 {
        let is_disconnected = about == "cancelled" && *revision == STATELESS;
        let about = if is_disconnected { "disconnected" } else { about };
        let found = tree(&collector.trace(id));
        match expected.get(about) {
            None if PREPARATION.contains(&about) => {}
            Some(expected) if expected.replace("REVISION", revision) == found.trim() => {}
            _ => wrong.push_str(&format!("# {about} ({revision})\n{found}")),
        }
    }
    assert!(wrong.is_empty(), "unexpected trees:\n{wrong}");
    let known: Vec<_> = traces.0.iter().map(|(_, _, id)| id).collect();
    let is_orphan = |span: &&drawbridge_tests::Span| {
        span.parent_id.is_empty()
            && !known.contains(&&span.trace_id)
            && span.name.starts_with("drawbridge.auth.v1.AuthService/Authorize")
    };
    let orphans: Vec<_> = collector.spans().into_iter().filter(|span| is_orphan(&span)).collect();
    assert!(orphans.is_empty(), "{orphans:#?}");
}

/// The expected trees, by case: a line `# case`, then the tree. `REVISION` stands for the revision.
fn expected() -> BTreeMap<String, String> {
    let file = repository().join("tests/tests/e2e/traces/outcomes.txt");
    let text = fs::read_to_string(file).expect("a file");
    let cases = text.split("# ").filter_map(|case| case.split_once('\n'));
    cases.map(|(name, tree)| (name.to_owned(), tree.trim().to_owned())).collect()
}
