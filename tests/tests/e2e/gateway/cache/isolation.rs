//! Isolation of cached results between callers and tenants.

use std::collections::BTreeMap;

use drawbridge_mesh::MeshConfig;
use drawbridge_proto::auth::v1::token_set::Which;
use drawbridge_tests::cached::TOOLS;
use http::StatusCode;
use rand::seq::SliceRandom as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::{CacheTest, call, is_hit, until};
use crate::auth::revocation::{platform, revoke_of};

const USERS: usize = 100;
const TENANTS: usize = 5;
/// The number of calls of each user to each tool between two edits of the policies.
const ROUNDS: usize = 2;
const EDITS: usize = 2;

/// All tools and the number of results of each: one per user, per tenant, or one for all.
fn tools() -> Vec<(String, usize)> {
    let sharers = [USERS, TENANTS, 1];
    let each = TOOLS.into_iter().zip(sharers);
    each.flat_map(|((scope, count), sharers)| {
        (1..=count).map(move |n| (format!("{scope}{n}"), sharers))
    })
    .collect()
}

fn tenant(user: usize) -> String {
    format!("tenant-{}", user % TENANTS)
}

/// The value that a tool returns to this user.
fn expected(tool: &str, user: usize) -> String {
    match tool {
        tool if tool.starts_with("private") => format!("user-{user} of {}", tenant(user)),
        tool if tool.starts_with("tenant") => tenant(user),
        _ => String::new(),
    }
}

fn errors_only(config: &mut MeshConfig) {
    config.telemetry.log = "error".to_owned();
}

/// Every user calls every tool in random order through both replicas. Returns the number of cache
/// hits.
async fn call_all(test: &CacheTest) -> usize {
    let mut tasks = JoinSet::new();
    let mut hits = 0;
    for user in 0..USERS {
        let clients = [0, 1].map(|edge| test.client(edge, &format!("user-{user}"), &tenant(user)));
        let mut calls: Vec<_> = (0..ROUNDS).flat_map(|_| tools()).map(|(tool, _)| tool).collect();
        calls.shuffle(&mut rand::rng());
        tasks.spawn(async move {
            let mut hits = 0;
            for (number, tool) in calls.into_iter().enumerate() {
                let result =
                    call(&clients[number % 2], &tool, json!({ "about": "isolation" })).await;
                assert_eq!(result.value, expected(&tool, user), "{tool} for user-{user}");
                hits += usize::from(result.hit);
            }
            hits
        });
        // At most eight users call concurrently.
        if tasks.len() == 8 {
            hits += tasks.join_next().await.expect("a task").expect("hits");
        }
    }
    hits + tasks.join_all().await.into_iter().sum::<usize>()
}

/// Waits until both replicas use the current policies, so that older entries are not found.
async fn wait_for_policies(test: &CacheTest) {
    for edge in 0..2 {
        let probe = test.client(edge, "probe", "probes");
        let hit = async || {
            call(&probe, "private1", json!({ "about": format!("probe-{edge}") })).await.hit
        };
        until("the policies", async || !hit().await).await;
        assert!(hit().await);
    }
}

#[tokio::test]
async fn every_result_belongs_to_its_caller_and_is_fetched_once() {
    let test = CacheTest::with(2, errors_only).await;
    wait_for_policies(&test).await;
    let results: usize = tools().iter().map(|(_, sharers)| sharers).sum();
    let calls = USERS * tools().len() * ROUNDS;
    let mut before = BTreeMap::new();
    for edit in 0..=EDITS {
        let hits = call_all(&test).await;
        let counts = test.service.calls();
        let fetched = |entry| counts[entry] - before.get(entry).copied().unwrap_or_default();
        let mut sum = 0;
        for entry in counts.keys().filter(|entry| entry.about == "isolation") {
            // Both replicas may fetch the same result concurrently. A single user calls
            // sequentially.
            let max = if entry.tool.starts_with("private") { 1 } else { 2 };
            assert!((1..=max).contains(&fetched(entry)), "{entry:?}: {}", fetched(entry));
            sum += fetched(entry);
        }
        println!(
            "{calls} calls of {USERS} persons of {TENANTS} tenants: {results} results, fetched {sum} times; \
             {hits} hits, {:.1} %",
            100.0 * f64::from(u32::try_from(hits).expect("a count"))
                / f64::from(u32::try_from(calls).expect("a count"))
        );
        assert_eq!(counts.keys().filter(|entry| entry.about == "isolation").count(), results);
        assert_eq!(hits + sum, calls);
        before = counts;
        if edit < EDITS {
            // A changed text is a new revision of the policies.
            test.mesh.edit_policy(
                "cached.cedar",
                "permit (",
                &format!("// Edit {edit}.\npermit ("),
            );
            wait_for_policies(&test).await;
        }
    }
}

#[tokio::test]
async fn auth_decides_before_a_cached_result_is_returned() {
    let test = CacheTest::start(2).await;
    let alice = [0, 1].map(|edge| test.client(edge, "alice", "acme"));
    let bob = [0, 1].map(|edge| test.client(edge, "bob", "acme"));
    let about = json!({ "about": "cached" });
    for client in alice.iter().chain(&bob) {
        call(client, "tenant1", about.clone()).await;
        assert!(is_hit(&client.call_tool("cached_tenant1", about.clone()).await));
    }
    assert_eq!(test.service.count("tenant1", "cached"), 1);

    let bobs = format!("User::\"{}#bob\"", test.issuer.name());
    let forbid = format!("@id(\"not-bob\")\nforbid (principal == {bobs}, action, resource);\n");
    let permit = "@id(\"all-cached\")";
    test.mesh.edit_policy("cached.cedar", permit, &format!("{forbid}{permit}"));
    for client in &bob {
        let entry = async || client.call_tool("cached_tenant1", about.clone()).await;
        until("the policy", async || entry().await.is_hidden()).await;
    }
    for client in &alice {
        assert_eq!(client.call_tool("cached_tenant1", about.clone()).await.status, StatusCode::OK);
    }

    let (own, name) = (platform(&test.mesh).await, test.issuer.name());
    revoke_of(&test.mesh, &own, name, Which::Subject("alice".to_owned())).await;
    for client in &alice {
        let entry = async || client.call_tool("cached_tenant1", about.clone()).await.status;
        until("the revocation", async || entry().await == StatusCode::UNAUTHORIZED).await;
    }
}
