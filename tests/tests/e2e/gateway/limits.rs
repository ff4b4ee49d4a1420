//! Rate limits, counted at the client.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, Edge, REPLICA_SECRET, Redis, Reply, TestMesh};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use tempfile::TempDir;

mod replicas;

/// The time limit for a change to take effect, on a busy machine too.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// An editable config file. Its Redis timeout is generous: the speed of Redis is not under test.
struct ConfigFile(TempDir);

impl ConfigFile {
    fn new(limits: &str) -> Self {
        let file = Self(tempfile::tempdir().expect("a folder"));
        file.write(limits);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("edge.toml")
    }

    fn write(&self, limits: &str) {
        let settings = "[limits]\nreplicas = 2\nredis_timeout_ms = 5000\n";
        fs::write(self.path(), format!("{settings}{limits}")).expect("a file");
    }
}

async fn replica(mesh: &TestMesh, file: &Path, redis: Option<&Redis>) -> Edge {
    let code = mesh.mesh.state.services["code"].clone();
    mesh.edge(&[("code", &code)], |config| {
        config.config = Some(file.to_owned());
        config.secret = Some(REPLICA_SECRET.into());
        config.redis_url = redis.map(|redis| redis.url.as_str().into());
    })
    .await
}

pub(super) async fn ping(client: &Client) -> Reply {
    client.call("ping", json!({})).await
}

async fn search(client: &Client) -> Reply {
    client
        .call_tool(
            "code_search",
            json!({ "query": "permit", "path": "policies", "max_results": 1 }),
        )
        .await
}

/// Sends `requests` and returns how many pass. The others must be rejected by a rate limit.
pub(super) async fn count_passed(client: &Client, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        match ping(client).await {
            reply if reply.status == StatusCode::OK => passed += 1,
            reply => assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "{reply:?}"),
        }
    }
    passed
}

pub(crate) async fn metric(edge: &Edge, line: &str) -> Option<String> {
    let metrics = reqwest::get(format!("http://{}/metrics", edge.hosted.running.admin))
        .await
        .expect("metrics");
    let metrics = metrics.text().await.expect("metrics");
    metrics.lines().find_map(|found| found.strip_prefix(line)).map(|value| value.trim().to_owned())
}

pub(crate) async fn until(what: &str, is_done: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !is_done().await {
        assert!(started.elapsed() < CHANGE_TIMEOUT, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_rejection_names_the_limit_and_when_to_retry() {
    let mesh = TestMesh::start().await;
    let limit = "[[limit]]\nname = \"each-person\"\nby = \"principal\"\nrate = 4\nper_seconds = 400\nburst = 6\n";
    let file = ConfigFile::new(limit);
    let edge = replica(&mesh, &file.path(), None).await;
    let alice = edge.client(&mesh.client("alice").await);
    let first = ping(&alice).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(text(&first.headers, "ratelimit-policy"), "\"each-person\";q=4;w=400");
    // This replica's half of the limit.
    assert_eq!(text(&first.headers, "ratelimit"), "\"each-person\";r=2;t=200");
    assert_eq!(count_passed(&alice, 3).await, 2);

    let origin = edge.url.origin().ascii_serialization();
    let body = json!({ "jsonrpc": "2.0", "id": "seven", "method": "tools/list" });
    let refused = alice.send(alice.post().header("origin", origin).body(body.to_string())).await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (StatusCode::TOO_MANY_REQUESTS, Some(-32049))
    );
    refused.assert_names_request();
    assert_eq!(refused.json["id"], "seven");
    let data = &refused.json["error"]["data"];
    assert_eq!((&data["reason"], &data["limit"]), (&json!("rate_limited"), &json!("each-person")));
    assert_eq!(data["remaining"], 0);
    let millis = data["retryAfterMs"].as_u64().expect("a number");
    assert!((100_000..=200_000).contains(&millis), "{millis}");
    let seconds = millis.div_ceil(1000).to_string();
    assert_eq!(text(&refused.headers, "retry-after"), seconds);
    assert_eq!(text(&refused.headers, "ratelimit"), format!("\"each-person\";r=0;t={seconds}"));
    let exposed = text(&refused.headers, "access-control-expose-headers");
    for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
        assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{exposed}");
    }
    let bob = edge.client(&mesh.client("bob").await);
    assert_eq!(ping(&bob).await.status, StatusCode::OK, "alice's limit does not affect bob");
}

#[tokio::test]
async fn tools_have_costs_and_classes_and_a_caller_without_permission_consumes_only_its_own_limit()
{
    let mesh = TestMesh::start().await;
    let file = ConfigFile::new(
        r#"
        [[limit]]
        name = "searches"
        by = "tool_class"
        rate = 20
        per_seconds = 864000
        only = { classes = ["search"] }
        cost = { code_search = 4 }
        [[limit]]
        name = "each"
        by = "principal"
        rate = 24
        per_seconds = 864000
        "#,
    );
    let edge = replica(&mesh, &file.path(), None).await;
    let (alice, bob) =
        (edge.client(&mesh.client("alice").await), edge.client(&mesh.client("bob").await));
    // This replica allows 10 units of searches and 12 requests of each user.
    for _ in 0..12 {
        assert!(search(&bob).await.is_hidden());
    }
    assert_eq!(search(&bob).await.status, StatusCode::TOO_MANY_REQUESTS);
    for _ in 0..2 {
        assert_eq!(search(&alice).await.status, StatusCode::OK);
    }
    let refused = search(&alice).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.json["error"]["data"]["limit"], "searches");
    assert_eq!(refused.json["error"]["data"]["remaining"], 2);
    // The rejected call consumed nothing: ten of the user's twelve requests remain.
    assert_eq!(count_passed(&alice, 12).await, 10);
}

#[tokio::test]
async fn unauthenticated_requests_are_limited_by_address_and_affect_no_user() {
    let mesh = TestMesh::start().await;
    let file = ConfigFile::new(
        "[[limit]]\nname = \"anonymous\"\nby = \"address\"\nrate = 12\nper_seconds = 864000\n",
    );
    let edge = replica(&mesh, &file.path(), None).await;
    let alice = edge.client(&mesh.client("alice").await);
    let anonymous = mesh.anonymous().at(&edge.url);
    let forger = mesh.client_with("no-token").at(&edge.url);
    // Her first request consumes one of this replica's 6; from then on she is authenticated.
    assert_eq!(ping(&alice).await.status, StatusCode::OK);
    for client in [&anonymous, &forger] {
        let refused = ping(client).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.headers.contains_key(header::WWW_AUTHENTICATE));
    }
    let metadata = edge.url.join("/.well-known/oauth-protected-resource/mcp").expect("a URL");
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(reqwest::get(metadata.clone()).await.expect("an answer").status());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    for client in [&anonymous, &forger] {
        let refused = ping(client).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(!text(&refused.headers, "retry-after").is_empty());
        refused.assert_names_request();
    }
    assert_eq!(count_passed(&alice, 20).await, 20);
}

#[tokio::test]
async fn limits_are_reloaded_while_the_edge_runs() {
    let (redis, mesh) = (Redis::start().await, TestMesh::start().await);
    let limit = |rate: u32| {
        format!(
            "[[limit]]\nname = \"few\"\nby = \"principal\"\nrate = {rate}\nper_seconds = 864000\n"
        )
    };
    let file = ConfigFile::new("");
    let edge = replica(&mesh, &file.path(), Some(&redis)).await;
    let alice = edge.client(&mesh.client("alice").await);
    assert_eq!(count_passed(&alice, 20).await, 20);
    file.write(&limit(3));
    until("the limit", async || ping(&alice).await.status == StatusCode::TOO_MANY_REQUESTS).await;
    // An invalid edit changes nothing and is reported.
    file.write(&limit(3).replace("principal", "person"));
    until("the mistake", async || {
        metric(&edge, "edge_config_current").await.as_deref() == Some("0")
    })
    .await;
    assert_eq!(ping(&alice).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(mesh.log().contains("unknown variant `person`"));
    file.write("");
    until("no limit", async || ping(&alice).await.status == StatusCode::OK).await;
    assert_eq!(count_passed(&alice, 20).await, 20);
}
