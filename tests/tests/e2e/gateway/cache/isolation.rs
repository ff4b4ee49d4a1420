//! Whose results are whose.

use std::collections::BTreeMap;

use drawbridge_cli::mesh::MeshConfig;
use drawbridge_proto::auth::v1::token_set::Which;
use drawbridge_tests::cached::TOOLS;
use http::StatusCode;
use rand::seq::SliceRandom as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Scene, ask, is_hit, until};
use crate::auth::revocation::{platform, revoke_of};

const PERSONS: usize = 100;
const TENANTS: usize = 5;
/// How often each person calls each tool between two edits of the policies.
const ROUNDS: usize = 2;
const EDITS: usize = 2;

/// All tools, and how many results there are of each: one for each person, or tenant, or for all.
fn tools() -> Vec<(String, usize)> {
    let sharers = [PERSONS, TENANTS, 1];
    let each = TOOLS.into_iter().zip(sharers);
    each.flat_map(|((scope, count), sharers)| {
        (1..=count).map(move |n| (format!("{scope}{n}"), sharers))
    })
    .collect()
}

fn tenant(person: usize) -> String {
    format!("tenant-{}", person % TENANTS)
}

/// What a tool tells this person, and nobody whom it does not concern.
fn expected(tool: &str, person: usize) -> String {
    match tool {
        tool if tool.starts_with("private") => format!("person-{person} of {}", tenant(person)),
        tool if tool.starts_with("tenant") => tenant(person),
        _ => String::new(),
    }
}

fn quiet(config: &mut MeshConfig) {
    config.telemetry.log = "error".to_owned();
}

/// Everybody calls every tool in an order of their own, through both replicas. Says how many answers were kept.
async fn everybody_calls(scene: &Scene) -> usize {
    let mut calling = JoinSet::new();
    let mut hits = 0;
    for person in 0..PERSONS {
        let clients =
            [0, 1].map(|edge| scene.client(edge, &format!("person-{person}"), &tenant(person)));
        let mut calls: Vec<_> = (0..ROUNDS).flat_map(|_| tools()).map(|(tool, _)| tool).collect();
        calls.shuffle(&mut rand::rng());
        calling.spawn(async move {
            let mut hits = 0;
            for (number, tool) in calls.into_iter().enumerate() {
                let answer =
                    ask(&clients[number % 2], &tool, json!({ "about": "isolation" })).await;
                assert_eq!(answer.told, expected(&tool, person), "{tool} for person-{person}");
                hits += usize::from(answer.hit);
            }
            hits
        });
        // Some at once.
        if calling.len() == 8 {
            hits += calling.join_next().await.expect("a person").expect("answers");
        }
    }
    hits + calling.join_all().await.into_iter().sum::<usize>()
}

/// Waits until both replicas answer by the policies as they are now: what they kept before is not found.
async fn policies_hold(scene: &Scene) {
    for edge in 0..2 {
        let probe = scene.client(edge, "probe", "probes");
        let hit =
            async || ask(&probe, "private1", json!({ "about": format!("probe-{edge}") })).await.hit;
        until("the policies", async || !hit().await).await;
        assert!(hit().await);
    }
}

#[tokio::test]
async fn every_answer_is_its_callers_and_as_many_are_kept_as_can_be() {
    let scene = Scene::with(2, quiet).await;
    policies_hold(&scene).await;
    let results: usize = tools().iter().map(|(_, sharers)| sharers).sum();
    let calls = PERSONS * tools().len() * ROUNDS;
    let mut before = BTreeMap::new();
    for edit in 0..=EDITS {
        let hits = everybody_calls(&scene).await;
        let counts = scene.service.calls();
        let fetched = |call| counts[call] - before.get(call).copied().unwrap_or_default();
        let mut sum = 0;
        for call in counts.keys().filter(|call| call.about == "isolation") {
            // Two replicas that are asked the same at the same time may both fetch it. A person asks one after the other.
            let most = if call.tool.starts_with("private") { 1 } else { 2 };
            assert!((1..=most).contains(&fetched(call)), "{call:?}: {}", fetched(call));
            sum += fetched(call);
        }
        println!(
            "{calls} calls of {PERSONS} persons of {TENANTS} tenants: {results} results, fetched {sum} times; \
             {hits} hits, {:.1} %",
            100.0 * f64::from(u32::try_from(hits).expect("a count"))
                / f64::from(u32::try_from(calls).expect("a count"))
        );
        assert_eq!(counts.keys().filter(|call| call.about == "isolation").count(), results);
        assert_eq!(hits + sum, calls);
        before = counts;
        if edit < EDITS {
            // Another text is another revision.
            scene.mesh.edit_policy(
                "cached.cedar",
                "permit (",
                &format!("// Edit {edit}.\npermit ("),
            );
            policies_hold(&scene).await;
        }
    }
}

#[tokio::test]
async fn auth_decides_before_what_is_kept_is_answered_with() {
    let scene = Scene::start(2).await;
    let alice = [0, 1].map(|edge| scene.client(edge, "alice", "acme"));
    let bob = [0, 1].map(|edge| scene.client(edge, "bob", "acme"));
    let kept = json!({ "about": "kept" });
    for client in alice.iter().chain(&bob) {
        ask(client, "tenant1", kept.clone()).await;
        assert!(is_hit(&client.call_tool("cached_tenant1", kept.clone()).await));
    }
    assert_eq!(scene.service.count("tenant1", "kept"), 1);

    let bobs = format!("User::\"{}#bob\"", scene.issuer.name());
    let forbid = format!("@id(\"not-bob\")\nforbid (principal == {bobs}, action, resource);\n");
    let permit = "@id(\"all-cached\")";
    scene.mesh.edit_policy("cached.cedar", permit, &format!("{forbid}{permit}"));
    for client in &bob {
        let call = async || client.call_tool("cached_tenant1", kept.clone()).await;
        until("the policy", async || call().await.is_hidden()).await;
    }
    for client in &alice {
        assert_eq!(client.call_tool("cached_tenant1", kept.clone()).await.status, StatusCode::OK);
    }

    let (own, name) = (platform(&scene.mesh).await, scene.issuer.name());
    revoke_of(&scene.mesh, &own, name, Which::Subject("alice".to_owned())).await;
    for client in &alice {
        let call = async || client.call_tool("cached_tenant1", kept.clone()).await.status;
        until("the revocation", async || call().await == StatusCode::UNAUTHORIZED).await;
    }
}
