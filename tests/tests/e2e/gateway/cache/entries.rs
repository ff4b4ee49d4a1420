//! Which results are cached, how, and for how long.

use std::{fs, time::Duration};

use redis::AsyncCommands as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::{CacheTest, SETTINGS, call, call_result, is_hit, read, until};

/// All keys and values in Redis.
async fn redis_entries(url: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
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

fn contains(found: &[(Vec<u8>, Vec<u8>)], text: &str) -> bool {
    let within = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    found.iter().any(|(key, value)| within(key) || within(value))
}

#[tokio::test]
async fn entries_in_redis_are_encrypted_and_reveal_no_caller() {
    let test = CacheTest::start(2).await;
    let clients = [0, 1].map(|edge| test.client(edge, "alice", "acme"));
    let about = json!({ "about": "needle" });
    assert!(!call(&clients[0], "private1", about.clone()).await.hit);
    let cached = call(&clients[1], "private1", about.clone()).await;
    assert_eq!((cached.value.as_str(), cached.hit), ("alice of acme", true));
    assert!(!is_hit(&clients[0].call_tool("cached_confide", about.clone()).await));
    let confided = clients[1].call_tool("cached_confide", about.clone()).await;
    assert!(is_hit(&confided), "{confided:?}");
    assert_eq!(confided.json["result"]["structuredContent"]["secret"], "the secret of needle");

    let found = redis_entries(&test.redis.as_ref().expect("Redis").url).await;
    let results = found.iter().filter(|(key, _)| key.starts_with(b"drawbridge:cache:entry:"));
    assert_eq!(results.count(), 2);
    for text in ["alice", "acme", "needle", "secret", "private1", clients[0].token()] {
        assert!(!contains(&found, text), "{text} is found");
    }
}

#[tokio::test]
async fn concurrent_equal_calls_are_a_single_flight() {
    let test = CacheTest::start(1).await;
    let slow = json!({ "about": "x", "milliseconds": 2000 });
    let mut tasks = JoinSet::new();
    for person in 0..30 {
        let (client, slow) = (test.client(0, &format!("person-{person}"), "acme"), slow.clone());
        tasks.spawn(async move { call(&client, "tenant1", slow).await });
    }
    let results = tasks.join_all().await;
    let is_same =
        |result: &super::CallResult| result.value == "acme" && result.call == results[0].call;
    assert!(results.iter().all(is_same));
    assert_eq!(results.iter().filter(|result| !result.hit).count(), 1);
    assert_eq!(test.service.count("tenant1", "x"), 1);
}

#[tokio::test]
async fn a_cancelled_call_does_not_fail_the_other_callers_of_its_flight() {
    let test = CacheTest::start(1).await;
    let slow = json!({ "about": "x", "milliseconds": 3000 });
    let cancelled = test.client(0, "cancelled", "acme");
    let first = tokio::spawn({
        let slow = slow.clone();
        async move { call(&cancelled, "tenant1", slow).await }
    });
    until("the first", async || test.service.count("tenant1", "x") == 1).await;
    let mut tasks = JoinSet::new();
    for person in 0..10 {
        let (client, slow) = (test.client(0, &format!("person-{person}"), "acme"), slow.clone());
        tasks.spawn(async move { call(&client, "tenant1", slow).await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.abort();
    assert!(tasks.join_all().await.iter().all(|result| result.value == "acme"));
    assert!(test.service.count("tenant1", "x") <= 2, "at most one call replaces the cancelled one");
}

#[tokio::test]
async fn a_stale_result_is_returned_while_it_is_revalidated() {
    let test = CacheTest::start(1).await;
    let alice = test.client(0, "alice", "acme");
    let about = json!({ "about": "x" });
    let first = call(&alice, "brief", about.clone()).await;
    assert!(!first.hit);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let stale = call(&alice, "brief", about.clone()).await;
    assert_eq!((stale.hit, stale.call), (true, first.call));
    // The revalidation blocks no caller, and a later caller gets its result.
    until("the fetch", async || {
        let next = call(&alice, "brief", about.clone()).await;
        assert!(next.hit);
        next.call > first.call
    })
    .await;
}

#[tokio::test]
async fn errors_and_input_requests_are_never_cached() {
    let test = CacheTest::start(1).await;
    let alice = test.client(0, "alice", "acme");
    for outcome in ["error", "status", "question"] {
        for _ in 0..2 {
            alice.call_tool("cached_try", json!({ "outcome": outcome })).await;
        }
        assert_eq!(test.service.count("try", outcome), 2, "{outcome}");
    }
    for _ in 0..2 {
        alice.call_tool("cached_try", json!({ "outcome": "fine" })).await;
    }
    assert_eq!(test.service.count("try", "fine"), 1);
    // A result may have at most 256 KiB.
    for (about, bytes, calls) in [("large", 300_000, 2), ("small", 200_000, 1)] {
        for _ in 0..2 {
            call(&alice, "public1", json!({ "about": about, "bytes": bytes })).await;
        }
        assert_eq!(test.service.count("public1", about), calls, "{about}");
    }
    // The tool is declared as writing.
    for _ in 0..2 {
        let reply = alice.call_tool("cached_greedy", json!({ "about": "x" })).await;
        assert_eq!(reply.json["result"]["_meta"].get("drawbridge/cache"), None, "{reply:?}");
    }
    assert_eq!(test.service.count("greedy", "x"), 2);
    assert!(
        test.mesh.log().contains("only a tool that is read-only and idempotent may have `cache`")
    );
}

#[tokio::test]
async fn clients_receive_the_remaining_lifetime_of_a_result() {
    let test = CacheTest::start(1).await;
    let alice = test.client(0, "alice", "acme");
    let fetched = read(&alice, "note://x").await;
    assert!(!is_hit(&fetched), "{fetched:?}");
    let ttl =
        |reply: &drawbridge_tests::Reply| reply.json["result"]["ttlMs"].as_u64().expect("a time");
    assert!(ttl(&fetched) <= 600_000);
    // MCP has no scope for a tenant's results.
    assert_eq!(fetched.json["result"]["cacheScope"], "private");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let cached = read(&alice, "note://x").await;
    assert!(is_hit(&cached), "{cached:?}");
    let age = cached.json["result"]["_meta"]["drawbridge/cache"]["ageMs"].as_u64().expect("an age");
    assert!(
        age >= 20 && ttl(&cached) + age <= 600_000 && ttl(&cached) + age >= 599_998,
        "{cached:?}"
    );

    fs::write(test.config(), format!("{SETTINGS}enabled = false\n")).expect("a file");
    until("the edit", async || !is_hit(&read(&alice, "note://x").await)).await;
    let uncached = read(&alice, "note://x").await;
    assert!(!is_hit(&uncached));
    assert_eq!(ttl(&uncached), 0, "clients do not cache it either");
    let plain = call_result(&alice.call_tool("cached_public1", json!({ "about": "x" })).await);
    assert!(!plain.hit);
}
