//! What is kept, how, and for how long.

use std::{fs, time::Duration};

use redis::AsyncCommands as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::{SETTINGS, Scene, ask, told, is_hit, read, until};

/// All that lies in Redis.
async fn all_of_redis(url: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let client = redis::Client::open(url).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis");
    let keys: Vec<Vec<u8>> = connection.keys("*").await.expect("keys");
    let mut found = Vec::new();
    for key in keys {
        // The tags are a hash.
        let value: Vec<u8> = match connection.get(&key).await {
            Ok(value) => value,
            Err(_) => {
                let fields: Vec<Vec<u8>> = connection.hgetall(&key).await.expect("a hash");
                fields.concat()
            }
        };
        found.push((key, value));
    }
    found
}

fn holds(found: &[(Vec<u8>, Vec<u8>)], text: &str) -> bool {
    let within = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    found.iter().any(|(key, value)| within(key) || within(value))
}

#[tokio::test]
async fn what_lies_in_redis_is_encrypted_and_names_nobody() {
    let scene = Scene::start(2).await;
    let clients = [0, 1].map(|edge| scene.client(edge, "alice", "acme"));
    let about = json!({ "about": "needle" });
    assert!(!ask(&clients[0], "private1", about.clone()).await.hit);
    let kept = ask(&clients[1], "private1", about.clone()).await;
    assert_eq!((kept.told.as_str(), kept.hit), ("alice of acme", true));
    assert!(!is_hit(&clients[0].call_tool("cached_confide", about.clone()).await));
    let confided = clients[1].call_tool("cached_confide", about.clone()).await;
    assert!(is_hit(&confided), "{confided:?}");
    assert_eq!(confided.json["result"]["structuredContent"]["secret"], "the secret of needle");

    let found = all_of_redis(&scene.redis.as_ref().expect("Redis").url).await;
    let results = found.iter().filter(|(key, _)| key.starts_with(b"drawbridge:cache:entry:"));
    assert_eq!(results.count(), 2);
    for text in ["alice", "acme", "needle", "secret", "private1", clients[0].token()] {
        assert!(!holds(&found, text), "{text} is found");
    }
}

#[tokio::test]
async fn of_many_who_ask_the_same_at_once_one_is_sent_to_the_service() {
    let scene = Scene::start(1).await;
    let slow = json!({ "about": "x", "milliseconds": 2000 });
    let mut asking = JoinSet::new();
    for person in 0..30 {
        let (client, slow) = (scene.client(0, &format!("person-{person}"), "acme"), slow.clone());
        asking.spawn(async move { ask(&client, "tenant1", slow).await });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| answer.told == "acme" && answer.call == answers[0].call));
    assert_eq!(answers.iter().filter(|answer| !answer.hit).count(), 1);
    assert_eq!(scene.service.count("tenant1", "x"), 1);
}

#[tokio::test]
async fn whoever_gives_up_fails_nobody_who_waits_too() {
    let scene = Scene::start(1).await;
    let slow = json!({ "about": "x", "milliseconds": 3000 });
    let leaving = scene.client(0, "leaving", "acme");
    let leaves = tokio::spawn({
        let slow = slow.clone();
        async move { ask(&leaving, "tenant1", slow).await }
    });
    until("the first", async || scene.service.count("tenant1", "x") == 1).await;
    let mut asking = JoinSet::new();
    for person in 0..10 {
        let (client, slow) = (scene.client(0, &format!("person-{person}"), "acme"), slow.clone());
        asking.spawn(async move { ask(&client, "tenant1", slow).await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    leaves.abort();
    assert!(asking.join_all().await.iter().all(|answer| answer.told == "acme"));
    assert!(scene.service.count("tenant1", "x") <= 2, "one went for the others");
}

#[tokio::test]
async fn a_stale_result_is_answered_with_while_it_is_fetched_anew() {
    let scene = Scene::start(1).await;
    let alice = scene.client(0, "alice", "acme");
    let about = json!({ "about": "x" });
    let first = ask(&alice, "brief", about.clone()).await;
    assert!(!first.hit);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let stale = ask(&alice, "brief", about.clone()).await;
    assert_eq!((stale.hit, stale.call), (true, first.call));
    // Nobody waits for it, and somebody gets it.
    until("the fetch", async || {
        let next = ask(&alice, "brief", about.clone()).await;
        assert!(next.hit);
        next.call > first.call
    })
    .await;
}

#[tokio::test]
async fn what_is_no_result_is_never_kept() {
    let scene = Scene::start(1).await;
    let alice = scene.client(0, "alice", "acme");
    for outcome in ["error", "status", "question"] {
        for _ in 0..2 {
            alice.call_tool("cached_try", json!({ "outcome": outcome })).await;
        }
        assert_eq!(scene.service.count("try", outcome), 2, "{outcome}");
    }
    for _ in 0..2 {
        alice.call_tool("cached_try", json!({ "outcome": "fine" })).await;
    }
    assert_eq!(scene.service.count("try", "fine"), 1);
    // Above the 256 KiB that one result may have.
    for (about, bytes, calls) in [("large", 300_000, 2), ("small", 200_000, 1)] {
        for _ in 0..2 {
            ask(&alice, "public1", json!({ "about": about, "bytes": bytes })).await;
        }
        assert_eq!(scene.service.count("public1", about), calls, "{about}");
    }
    // It says that it writes.
    for _ in 0..2 {
        let reply = alice.call_tool("cached_greedy", json!({ "about": "x" })).await;
        assert_eq!(reply.json["result"]["_meta"].get("drawbridge/cache"), None, "{reply:?}");
    }
    assert_eq!(scene.service.count("greedy", "x"), 2);
    assert!(
        scene.mesh.log().contains("only a tool that is read-only and idempotent may have `cache`")
    );
}

#[tokio::test]
async fn clients_are_told_how_long_a_result_is_still_good() {
    let scene = Scene::start(1).await;
    let alice = scene.client(0, "alice", "acme");
    let fetched = read(&alice, "note://x").await;
    assert!(!is_hit(&fetched), "{fetched:?}");
    let ttl =
        |reply: &drawbridge_tests::Reply| reply.json["result"]["ttlMs"].as_u64().expect("a time");
    assert!(ttl(&fetched) <= 600_000);
    // The tenant's, which is nothing that MCP knows.
    assert_eq!(fetched.json["result"]["cacheScope"], "private");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let kept = read(&alice, "note://x").await;
    assert!(is_hit(&kept), "{kept:?}");
    let age = kept.json["result"]["_meta"]["drawbridge/cache"]["ageMs"].as_u64().expect("an age");
    assert!(age >= 20 && ttl(&kept) + age <= 600_000 && ttl(&kept) + age >= 599_998, "{kept:?}");

    fs::write(scene.config(), format!("{SETTINGS}enabled = false\n")).expect("a file");
    until("the edit", async || !is_hit(&read(&alice, "note://x").await)).await;
    let passed = read(&alice, "note://x").await;
    assert!(!is_hit(&passed));
    assert_eq!(ttl(&passed), 0, "nobody keeps it");
    let plain = told(&alice.call_tool("cached_public1", json!({ "about": "x" })).await);
    assert!(!plain.hit);
}
