//! Invalidation by writes.

use std::time::Duration;

use serde_json::json;

use super::{CacheTest, call, is_hit, read, until};

/// The time limit for a write to be visible on every replica.
const PROPAGATION_MAX: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_write_invalidates_at_once_on_its_replica_and_within_a_second_on_all() {
    let test = CacheTest::start(2).await;
    let clients = [0, 1].map(|edge| test.client(edge, "alice", "acme"));
    let about = json!({ "about": "x" });
    for number in 0..6 {
        let (here, there) = (&clients[number % 2], &clients[(number + 1) % 2]);
        // Both replicas cache the previous result.
        for client in [here, there] {
            call(client, "look", about.clone()).await;
            assert!(call(client, "look", about.clone()).await.hit);
            read(client, "note://x").await;
            assert!(is_hit(&read(client, "note://x").await));
        }
        let text = format!("text {number}");
        let written = here.call_tool("cached_write", json!({ "about": "x", "text": text })).await;
        assert_eq!(written.json["result"]["isError"], json!(false), "{written:?}");
        assert_eq!(written.json["result"]["_meta"].get("drawbridge/cache"), None, "{written:?}");
        let result = call(here, "look", about.clone()).await;
        assert_eq!((result.value.as_str(), result.hit), (text.as_str(), false));
        assert!(read(here, "note://x").await.text.contains(&text));
        tokio::time::sleep(PROPAGATION_MAX).await;
        assert_eq!(call(there, "look", about.clone()).await.value, text);
        assert!(read(there, "note://x").await.text.contains(&text));
    }
}

#[tokio::test]
async fn a_read_in_flight_during_a_write_is_not_cached() {
    let test = CacheTest::start(2).await;
    let clients = [0, 1].map(|edge| test.client(edge, "alice", "acme"));
    let slow = json!({ "about": "x", "milliseconds": 3000 });
    let reading = tokio::spawn({
        let (there, slow) = (clients[1].clone(), slow.clone());
        async move { call(&there, "look", slow).await }
    });
    until("the read", async || test.service.count("look", "x") == 1).await;
    clients[0].call_tool("cached_write", json!({ "about": "x", "text": "new" })).await;
    assert_ne!(reading.await.expect("a result").value, "new", "it read before the write");
    tokio::time::sleep(PROPAGATION_MAX).await;
    for client in &clients {
        assert_eq!(call(client, "look", slow.clone()).await.value, "new");
    }
}

#[tokio::test]
async fn a_write_with_an_unknown_outcome_is_visible_once_it_happens() {
    let test = CacheTest::start(2).await;
    let clients = [0, 1].map(|edge| test.client(edge, "alice", "acme"));
    let about = json!({ "about": "x" });
    let failed = clients[0]
        .call_tool(
            "cached_write",
            json!({ "about": "x", "text": "late", "late_milliseconds": 2000 }),
        )
        .await;
    assert_eq!(failed.error_code(), Some(-32053), "{failed:?}");
    for client in &clients {
        assert_eq!(
            call(client, "look", about.clone()).await.value,
            "",
            "the write has not happened yet"
        );
    }
    // Without invalidation these reads would stay cached for ten minutes.
    for client in &clients {
        until("the write", async || call(client, "look", about.clone()).await.value == "late")
            .await;
    }
}
