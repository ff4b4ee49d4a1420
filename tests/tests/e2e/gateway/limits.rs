//! Rate limits, counted from outside.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, Edge, Redis, Reply, TestIssuer, TestMesh, repository};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Who calls at once, and how often each in turn: with Redis, without it, and with it again, more than 10,000 calls.
const PERSONS: usize = 50;
const WISHES: [usize; 5] = [12, 40, 60, 76, 96];
/// How often those call again who wanted least.
const LATE_WISH: usize = 48;
const EACH_MAX: usize = 60;
const TOGETHER_MAX: usize = 2520;
/// Within this time a change is seen, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);

/// A config file that the test edits. Redis may be slow here: it is not what is tested.
struct File(TempDir);

impl File {
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
        config.redis_url = redis.map(|redis| redis.url.as_str().into());
    })
    .await
}

pub(super) async fn ping(client: &Client) -> Reply {
    client.call("ping", json!({})).await
}

async fn search(client: &Client) -> Reply {
    client.call_tool("code_search", json!({ "query": "permit", "path": "policies", "max_results": 1 })).await
}

/// How many of so many requests pass. The others are refused for a rate.
pub(super) async fn passing(client: &Client, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        match ping(client).await {
            reply if reply.status == StatusCode::OK => passed += 1,
            reply => assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "{reply:?}"),
        }
    }
    passed
}

pub(super) async fn metric(edge: &Edge, line: &str) -> Option<String> {
    let metrics =
        reqwest::get(format!("http://{}/metrics", edge.hosted.running.admin)).await.expect("metrics");
    let metrics = metrics.text().await.expect("metrics");
    metrics.lines().find_map(|found| found.strip_prefix(line)).map(|value| value.trim().to_owned())
}

pub(super) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// What 50 persons do on two replicas: each calls so often as it likes, then some go on, and all search once.
struct Phase {
    calls: usize,
    passed: usize,
    /// Searches that were not refused.
    searched: usize,
}

async fn phase(clients: &[[Client; 2]]) -> Phase {
    // In turn at each replica, so that each has half of what a person does.
    let call = async |wish: fn(usize) -> usize| {
        let mut calling = JoinSet::new();
        for (person, clients) in clients.iter().cloned().enumerate() {
            calling.spawn(async move {
                let mut passed = 0;
                for request in 0..wish(person) {
                    passed += passing(&clients[(person + request) % 2], 1).await;
                }
                (wish(person), passed)
            });
        }
        calling.join_all().await
    };
    let early = call(|person| WISHES[person % WISHES.len()]).await;
    for (wish, passed) in &early {
        assert_eq!(*passed, EACH_MAX.min(*wish), "of {wish} requests");
    }
    // Those who wanted little want more now, and there is not enough for all together.
    let late = call(|person| if person % WISHES.len() == 0 { LATE_WISH } else { 0 }).await;
    let (calls, passed) =
        early.iter().chain(&late).fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    let mut searched = 0;
    for (person, clients) in clients.iter().enumerate() {
        let reply = search(&clients[person % 2]).await;
        let refused = reply.json["error"]["data"]["reason"] == "limit_closed";
        assert!(refused || reply.status == StatusCode::OK, "{reply:?}");
        searched += usize::from(!refused);
    }
    Phase { calls: calls + clients.len(), passed, searched }
}

#[tokio::test]
async fn two_replicas_together_admit_exactly_what_the_limits_allow_and_without_redis_what_the_config_says() {
    let (mut redis, issuer) = (Redis::start().await, TestIssuer::start().await);
    let mesh = TestMesh::with(|config| {
        config.telemetry.log = "error".to_owned();
        let file = config.policies.join("issuers.toml");
        let entry = format!("[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\n", issuer.name());
        fs::write(&file, entry).expect("a file");
        config.issuers = Some(file);
        // The issuer says who is calling, not what of.
        let policy = "@id(\"searches\")\npermit (principal, action == Action::\"code_search\", resource);\n";
        fs::write(config.policies.join("searches.cedar"), policy).expect("a file");
    })
    .await;
    // Nothing worth a request comes back while the test runs: the counts are exact.
    let file = File::new(&format!(
        "[[limit]]\nname = \"each\"\nby = \"principal\"\nrate = {EACH_MAX}\nper_seconds = 864000\n\
         cost = {{ code_search = 0 }}\n\
         [[limit]]\nname = \"together\"\nby = \"global\"\nrate = {TOGETHER_MAX}\nper_seconds = 30000000\n\
         cost = {{ code_search = 0 }}\n\
         [[limit]]\nname = \"searches\"\nby = \"tool\"\nrate = 1000\nper_seconds = 864000\n\
         only = {{ tools = [\"code_search\"] }}\nwithout_redis = \"closed\"\n"
    ));
    let edges =
        [replica(&mesh, &file.path(), Some(&redis)).await, replica(&mesh, &file.path(), Some(&redis)).await];
    let clients: Vec<_> = (0..PERSONS)
        .map(|person| {
            let mut claims = issuer.claims(mesh.mesh.mcp_url.as_str());
            claims["sub"] = json!(format!("person-{person}"));
            let client = mesh.client_with(&issuer.sign(&issuer.header(), &claims));
            edges.each_ref().map(|edge| edge.client(&client))
        })
        .collect();
    let began = Instant::now();
    let with = phase(&clients).await;
    redis.kill();
    let without = phase(&clients).await;
    redis.start_again().await;
    for edge in &edges {
        let available = async || metric(edge, "edge_limits_redis_available").await.as_deref() == Some("1");
        until("Redis", available).await;
    }
    // It has forgotten what was taken.
    let again = phase(&clients).await;

    for (name, phase, searched) in
        [("with", with, PERSONS), ("without", without, 0), ("again with", again, PERSONS)]
    {
        let Phase { calls, passed, .. } = phase;
        println!("{name} Redis: {calls} calls of {PERSONS} persons on two replicas: {passed} passed");
        // What was refused for one person's sake took nothing from what all have together.
        assert_eq!((passed, phase.searched), (TOGETHER_MAX, searched), "{name} Redis");
    }
    println!("in {:?}", began.elapsed());
    let wanted = PERSONS / WISHES.len() * WISHES.iter().sum::<usize>();
    let each = PERSONS / WISHES.len() * WISHES.iter().map(|wish| EACH_MAX.min(*wish)).sum::<usize>();
    let late = PERSONS / WISHES.len() * LATE_WISH;
    for (limit, refused) in [("each", wanted - each), ("together", each + late - TOGETHER_MAX)] {
        let mut counted = 0;
        for edge in &edges {
            let line = format!("edge_rate_limited_total{{limit=\"{limit}\"}}");
            counted += metric(edge, &line).await.map_or(0, |count| count.parse().expect("a count"));
        }
        assert_eq!(counted, 3 * refused, "refused by the limit {limit}");
    }
}

#[tokio::test]
async fn a_limit_lets_pass_at_its_rate_and_no_faster() {
    let (redis, mesh) = (Redis::start().await, TestMesh::start().await);
    let file = File::new("[[limit]]\nname = \"paced\"\nby = \"principal\"\nrate = 4\nburst = 8\n");
    let one = replica(&mesh, &file.path(), Some(&redis)).await;
    let other = replica(&mesh, &file.path(), Some(&redis)).await;
    let alice = mesh.client("alice").await;
    let (one, other) = (one.client(&alice), other.client(&alice));
    let (began, mut passed) = (Instant::now(), 0_u32);
    while began.elapsed() < Duration::from_secs(6) {
        let (here, there) = tokio::join!(passing(&one, 1), passing(&other, 1));
        passed += u32::try_from(here + there).expect("two");
    }
    let came = began.elapsed().as_secs_f64() * 4.0;
    println!("{passed} passed, where 8 and {came:.1} were there");
    assert!(f64::from(passed) <= 8.0 + came + 1.0, "{passed}");
    // A pause of the machine may have lost what a full bucket does not hold.
    assert!(f64::from(passed) >= came, "{passed}");
}

#[tokio::test]
async fn without_redis_each_limit_does_what_the_config_says_and_recovers() {
    let (mut redis, mesh) = (Redis::start().await, TestMesh::start().await);
    let file = File::new(
        r#"
        [[limit]]
        name = "goes-on"
        by = "principal"
        rate = 8
        per_seconds = 864000
        without_redis = "local"
        [[limit]]
        name = "closes"
        by = "tool"
        rate = 1000
        only = { tools = ["code_search"] }
        without_redis = "closed"
        "#,
    );
    let one = replica(&mesh, &file.path(), Some(&redis)).await;
    let other = replica(&mesh, &file.path(), Some(&redis)).await;
    let alice = mesh.client("alice").await;
    let (at_one, at_other) = (one.client(&alice), other.client(&alice));
    assert_eq!(search(&at_one).await.status, StatusCode::OK);
    assert_eq!((passing(&at_one, 4).await, passing(&at_other, 5).await), (4, 3));
    assert_eq!(metric(&one, "edge_limits_redis_available").await.as_deref(), Some("1"));

    redis.kill();
    for (edge, client) in [(&one, &at_one), (&other, &at_other)] {
        // Each replica has half, in a bucket of its own.
        assert_eq!(passing(client, 6).await, 4);
        let closed = search(client).await;
        assert_eq!((closed.status, closed.error_code()), (StatusCode::SERVICE_UNAVAILABLE, Some(-32053)));
        assert_eq!(text(&closed.headers, "retry-after"), "1");
        assert_eq!(closed.json["error"]["data"]["reason"], "limit_closed");
        closed.assert_names_request();
        assert_eq!(metric(edge, "edge_limits_redis_available").await.as_deref(), Some("0"));
    }
    let turns = mesh.log().matches("Redis is away: each limit").count();
    assert_eq!(turns, 2, "each replica says it once");

    redis.start_again().await;
    for edge in [&one, &other] {
        until("Redis", async || metric(edge, "edge_limits_redis_available").await.as_deref() == Some("1"))
            .await;
    }
    // It has forgotten what was taken.
    assert_eq!(search(&at_one).await.status, StatusCode::OK);
    assert_eq!((passing(&at_other, 4).await, passing(&at_one, 5).await), (4, 3));
}

#[tokio::test]
async fn a_refusal_says_which_limit_and_when_to_try_again() {
    let mesh = TestMesh::start().await;
    let limit =
        "[[limit]]\nname = \"each-person\"\nby = \"principal\"\nrate = 4\nper_seconds = 400\nburst = 6\n";
    let file = File::new(limit);
    let edge = replica(&mesh, &file.path(), None).await;
    let alice = edge.client(&mesh.client("alice").await);
    let first = ping(&alice).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(text(&first.headers, "ratelimit-policy"), "\"each-person\";q=4;w=400");
    // The replica's half of what is allowed.
    assert_eq!(text(&first.headers, "ratelimit"), "\"each-person\";r=2;t=200");
    assert_eq!(passing(&alice, 3).await, 2);

    let origin = edge.url.origin().ascii_serialization();
    let body = json!({ "jsonrpc": "2.0", "id": "seven", "method": "tools/list" });
    let refused = alice.send(alice.post().header("origin", origin).body(body.to_string())).await;
    assert_eq!((refused.status, refused.error_code()), (StatusCode::TOO_MANY_REQUESTS, Some(-32049)));
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
    assert_eq!(ping(&bob).await.status, StatusCode::OK, "it is alice's limit");
}

#[tokio::test]
async fn tools_have_costs_and_classes_and_whoever_may_not_call_them_takes_only_their_own() {
    let mesh = TestMesh::start().await;
    let file = File::new(
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
    let (alice, bob) = (edge.client(&mesh.client("alice").await), edge.client(&mesh.client("bob").await));
    // Of this replica's 10 for all searches and 12 for each person.
    for _ in 0..12 {
        assert_eq!(search(&bob).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(search(&bob).await.status, StatusCode::TOO_MANY_REQUESTS);
    for _ in 0..2 {
        assert_eq!(search(&alice).await.status, StatusCode::OK);
    }
    let refused = search(&alice).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.json["error"]["data"]["limit"], "searches");
    assert_eq!(refused.json["error"]["data"]["remaining"], 2);
    // What was refused took nothing: ten of the person's twelve are left.
    assert_eq!(passing(&alice, 12).await, 10);
}

#[tokio::test]
async fn whoever_is_not_authenticated_is_counted_by_address_and_disturbs_nobody() {
    let mesh = TestMesh::start().await;
    let file =
        File::new("[[limit]]\nname = \"strangers\"\nby = \"address\"\nrate = 12\nper_seconds = 864000\n");
    let edge = replica(&mesh, &file.path(), None).await;
    let alice = edge.client(&mesh.client("alice").await);
    let stranger = mesh.anonymous().at(&edge.url);
    let forger = mesh.client_with("no-token").at(&edge.url);
    for client in [&stranger, &forger] {
        let refused = ping(client).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.headers.contains_key(header::WWW_AUTHENTICATE));
    }
    let metadata = edge.url.join("/.well-known/oauth-protected-resource/mcp").expect("a URL");
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(reqwest::get(metadata.clone()).await.expect("an answer").status());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 429]);
    for client in [&stranger, &forger] {
        let refused = ping(client).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(!text(&refused.headers, "retry-after").is_empty());
        refused.assert_names_request();
    }
    assert_eq!(passing(&alice, 20).await, 20);
}

#[tokio::test]
async fn limits_are_edited_while_the_edge_runs() {
    let (redis, mesh) = (Redis::start().await, TestMesh::start().await);
    let limit = |rate: u32| {
        format!("[[limit]]\nname = \"few\"\nby = \"principal\"\nrate = {rate}\nper_seconds = 864000\n")
    };
    let file = File::new("");
    let edge = replica(&mesh, &file.path(), Some(&redis)).await;
    let alice = edge.client(&mesh.client("alice").await);
    assert_eq!(passing(&alice, 20).await, 20);
    file.write(&limit(3));
    until("the limit", async || ping(&alice).await.status == StatusCode::TOO_MANY_REQUESTS).await;
    // An edit that is wrong changes nothing, and says so.
    file.write(&limit(3).replace("principal", "person"));
    until("the mistake", async || metric(&edge, "edge_config_current").await.as_deref() == Some("0")).await;
    assert_eq!(ping(&alice).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(mesh.log().contains("unknown variant `person`"));
    file.write("");
    until("no limit", async || ping(&alice).await.status == StatusCode::OK).await;
    assert_eq!(passing(&alice, 20).await, 20);
}

#[tokio::test]
async fn the_examples_of_the_documentation_are_loaded() {
    let page = fs::read_to_string(repository().join("docs/edge.md")).expect("a page");
    let examples: Vec<_> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    let mesh = TestMesh::start().await;
    let services: Vec<_> =
        mesh.mesh.state.services.iter().map(|(namespace, url)| (namespace.as_str(), url)).collect();
    for example in examples {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("edge.toml");
        fs::write(&file, example).expect("a file");
        let lock = repository().join("policies/catalog.lock");
        fs::copy(lock, folder.path().join("catalog.lock")).expect("a lock");
        // It does not start with one that is wrong.
        let edge = mesh.edge(&services, |config| config.config = Some(file.clone())).await;
        edge.hosted.stop().await;
    }
}
