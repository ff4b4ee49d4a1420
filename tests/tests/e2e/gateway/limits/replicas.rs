//! Two replicas, which count together in Redis and each for itself without it.

use std::{
    fs,
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, Redis, TestIssuer, TestMesh};
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use super::{File, metric, passing, replica, search, text, until};

/// Who calls at once, and how often each in turn: with Redis, without it, and with it again, more than 10,000 calls.
const PERSONS: usize = 50;
const WISHES: [usize; 5] = [12, 40, 60, 76, 96];
/// How often those call again who wanted least.
const LATE_WISH: usize = 48;
const EACH_MAX: usize = 60;
const TOGETHER_MAX: usize = 2520;

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
async fn two_replicas_together_admit_exactly_what_the_limits_allow_and_without_redis_what_the_config_says()
 {
    let (mut redis, issuer) = (Redis::start().await, TestIssuer::start().await);
    let mesh = TestMesh::with(|config| {
        config.telemetry.log = "error".to_owned();
        let file = config.policies.join("issuers.toml");
        let entry = format!(
            "[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\n",
            issuer.name()
        );
        fs::write(&file, entry).expect("a file");
        config.issuers = Some(file);
        // The issuer says who is calling, not what of.
        let policy =
            "@id(\"searches\")\npermit (principal, action == Action::\"code_search\", resource);\n";
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
    let edges = [
        replica(&mesh, &file.path(), Some(&redis)).await,
        replica(&mesh, &file.path(), Some(&redis)).await,
    ];
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
        let available =
            async || metric(edge, "edge_limits_redis_available").await.as_deref() == Some("1");
        until("Redis", available).await;
    }
    // It has forgotten what was taken.
    let again = phase(&clients).await;

    for (name, phase, searched) in
        [("with", with, PERSONS), ("without", without, 0), ("again with", again, PERSONS)]
    {
        let Phase { calls, passed, .. } = phase;
        println!(
            "{name} Redis: {calls} calls of {PERSONS} persons on two replicas: {passed} passed"
        );
        // What was refused for one person's sake took nothing from what all have together.
        assert_eq!((passed, phase.searched), (TOGETHER_MAX, searched), "{name} Redis");
    }
    println!("in {:?}", began.elapsed());
    let wanted = PERSONS / WISHES.len() * WISHES.iter().sum::<usize>();
    let each =
        PERSONS / WISHES.len() * WISHES.iter().map(|wish| EACH_MAX.min(*wish)).sum::<usize>();
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
        assert_eq!(
            (closed.status, closed.error_code()),
            (StatusCode::SERVICE_UNAVAILABLE, Some(-32053))
        );
        assert_eq!(text(&closed.headers, "retry-after"), "1");
        assert_eq!(closed.json["error"]["data"]["reason"], "limit_closed");
        closed.assert_names_request();
        assert_eq!(metric(edge, "edge_limits_redis_available").await.as_deref(), Some("0"));
    }
    let turns = mesh.log().matches("Redis is away: each limit").count();
    assert_eq!(turns, 2, "each replica says it once");

    redis.start_again().await;
    for edge in [&one, &other] {
        until("Redis", async || {
            metric(edge, "edge_limits_redis_available").await.as_deref() == Some("1")
        })
        .await;
    }
    // It has forgotten what was taken.
    assert_eq!(search(&at_one).await.status, StatusCode::OK);
    assert_eq!((passing(&at_other, 4).await, passing(&at_one, 5).await), (4, 3));
}
