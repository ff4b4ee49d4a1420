//! Two replicas: they share counters in Redis, and count separately without it.

use std::{
    fs,
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, Redis, TestIssuer, TestMesh};
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use super::{ConfigFile, count_passed, metric, replica, search, text, until};

/// The concurrent users and the numbers of their calls: in three phases more than 10,000 calls.
const USERS: usize = 50;
const CALLS: [usize; 5] = [12, 40, 60, 76, 96];
/// The number of further calls of the users with the fewest.
const LATE_CALLS: usize = 48;
const EACH_MAX: usize = 60;
const TOGETHER_MAX: usize = 2520;

/// The calls of 50 users on two replicas: each makes its calls, then some make more, and all search
/// once.
struct Phase {
    calls: usize,
    passed: usize,
    /// Searches that were not rejected.
    searched: usize,
}

async fn phase(clients: &[[Client; 2]]) -> Phase {
    // Each user alternates between the replicas, so that each gets half of its calls.
    let call = async |requests: fn(usize) -> usize| {
        let mut tasks = JoinSet::new();
        for (user, clients) in clients.iter().cloned().enumerate() {
            tasks.spawn(async move {
                let mut passed = 0;
                for request in 0..requests(user) {
                    passed += count_passed(&clients[(user + request) % 2], 1).await;
                }
                (requests(user), passed)
            });
        }
        tasks.join_all().await
    };
    let early = call(|user| CALLS[user % CALLS.len()]).await;
    for (requests, passed) in &early {
        assert_eq!(*passed, EACH_MAX.min(*requests), "of {requests} requests");
    }
    // The users with the fewest calls make more, and the global limit is not enough for all.
    let late = call(|user| if user % CALLS.len() == 0 { LATE_CALLS } else { 0 }).await;
    let (calls, passed) =
        early.iter().chain(&late).fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    let mut searched = 0;
    for (user, clients) in clients.iter().enumerate() {
        let reply = search(&clients[user % 2]).await;
        let refused = reply.json["error"]["data"]["reason"] == "limit_closed";
        assert!(refused || reply.status == StatusCode::OK, "{reply:?}");
        searched += usize::from(!refused);
    }
    Phase { calls: calls + clients.len(), passed, searched }
}

#[tokio::test]
async fn two_replicas_together_admit_exactly_the_limit_and_without_redis_follow_the_config() {
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
        // The issuer provides no groups, so a policy permits the searches to all.
        let policy =
            "@id(\"searches\")\npermit (principal, action == Action::\"code_search\", resource);\n";
        fs::write(config.policies.join("searches.cedar"), policy).expect("a file");
    })
    .await;
    // The refill during the test is less than one request, so the counts are exact.
    let file = ConfigFile::new(&format!(
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
    let clients: Vec<_> = (0..USERS)
        .map(|user| {
            let mut claims = issuer.claims(mesh.mesh.mcp_url.as_str());
            claims["sub"] = json!(format!("user-{user}"));
            let client = mesh.client_with(&issuer.sign(&issuer.header(), &claims));
            edges.each_ref().map(|edge| edge.client(&client))
        })
        .collect();
    let started = Instant::now();
    let with = phase(&clients).await;
    redis.kill();
    let without = phase(&clients).await;
    redis.restart().await;
    for edge in &edges {
        let available =
            async || metric(edge, "edge_limits_redis_available").await.as_deref() == Some("1");
        until("Redis", available).await;
    }
    // The restarted Redis has no counters.
    let again = phase(&clients).await;

    for (name, phase, searched) in
        [("with", with, USERS), ("without", without, 0), ("again with", again, USERS)]
    {
        let Phase { calls, passed, .. } = phase;
        println!("{name} Redis: {calls} calls of {USERS} persons on two replicas: {passed} passed");
        // A call rejected by a user's limit consumed nothing of the global limit.
        assert_eq!((passed, phase.searched), (TOGETHER_MAX, searched), "{name} Redis");
    }
    println!("in {:?}", started.elapsed());
    let wanted = USERS / CALLS.len() * CALLS.iter().sum::<usize>();
    let each =
        USERS / CALLS.len() * CALLS.iter().map(|requests| EACH_MAX.min(*requests)).sum::<usize>();
    let late = USERS / CALLS.len() * LATE_CALLS;
    for (limit, refused) in [("each", wanted - each), ("together", each + late - TOGETHER_MAX)] {
        let mut counted = 0;
        for edge in &edges {
            let line = format!("edge_rate_limited_total{{limit=\"{limit}\"}}");
            counted += metric(edge, &line).await.map_or(0, |count| count.parse().expect("a count"));
        }
        assert_eq!(counted, 3 * refused, "rejected by the limit {limit}");
    }
}

#[tokio::test]
async fn a_limit_admits_at_its_rate_and_no_faster() {
    let (redis, mesh) = (Redis::start().await, TestMesh::start().await);
    let file =
        ConfigFile::new("[[limit]]\nname = \"paced\"\nby = \"principal\"\nrate = 4\nburst = 8\n");
    let one = replica(&mesh, &file.path(), Some(&redis)).await;
    let other = replica(&mesh, &file.path(), Some(&redis)).await;
    let alice = mesh.client("alice").await;
    let (one, other) = (one.client(&alice), other.client(&alice));
    let (started, mut passed) = (Instant::now(), 0_u32);
    while started.elapsed() < Duration::from_secs(6) {
        let (here, there) = tokio::join!(count_passed(&one, 1), count_passed(&other, 1));
        passed += u32::try_from(here + there).expect("two");
    }
    let refilled = started.elapsed().as_secs_f64() * 4.0;
    println!("{passed} passed, with a burst of 8 and a refill of {refilled:.1}");
    assert!(f64::from(passed) <= 8.0 + refilled + 1.0, "{passed}");
    // A pause of the machine may waste refills of a full bucket.
    assert!(f64::from(passed) >= refilled, "{passed}");
}

#[tokio::test]
async fn without_redis_each_limit_follows_its_config_and_recovers() {
    let (mut redis, mesh) = (Redis::start().await, TestMesh::start().await);
    let file = ConfigFile::new(
        r#"
        [[limit]]
        name = "local"
        by = "principal"
        rate = 8
        per_seconds = 864000
        without_redis = "local"
        [[limit]]
        name = "closed"
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
    assert_eq!((count_passed(&at_one, 4).await, count_passed(&at_other, 5).await), (4, 3));
    assert_eq!(metric(&one, "edge_limits_redis_available").await.as_deref(), Some("1"));

    redis.kill();
    for (edge, client) in [(&one, &at_one), (&other, &at_other)] {
        // Each replica has half of the limit in its own bucket.
        assert_eq!(count_passed(client, 6).await, 4);
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
    let warnings = mesh.log().matches("Redis is unavailable; each rate limit").count();
    assert_eq!(warnings, 2, "each replica logs it once");

    redis.restart().await;
    for edge in [&one, &other] {
        until("Redis", async || {
            metric(edge, "edge_limits_redis_available").await.as_deref() == Some("1")
        })
        .await;
    }
    // The restarted Redis has no counters.
    assert_eq!(search(&at_one).await.status, StatusCode::OK);
    assert_eq!((count_passed(&at_other, 4).await, count_passed(&at_one, 5).await), (4, 3));
}
