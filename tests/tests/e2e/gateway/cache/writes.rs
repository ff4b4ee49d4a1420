//! What is written is read.

use std::time::Duration;

use serde_json::json;

use super::{Scene, ask, is_hit, read, until};

/// Within this time a write is seen everywhere.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_write_is_seen_at_once_where_it_was_made_and_within_a_second_everywhere() {
    let scene = Scene::start(2).await;
    let clients = [0, 1].map(|edge| scene.client(edge, "alice", "acme"));
    let about = json!({ "about": "x" });
    for number in 0..6 {
        let (here, there) = (&clients[number % 2], &clients[(number + 1) % 2]);
        // Both keep what was there before.
        for client in [here, there] {
            ask(client, "look", about.clone()).await;
            assert!(ask(client, "look", about.clone()).await.hit);
            read(client, "note://x").await;
            assert!(is_hit(&read(client, "note://x").await));
        }
        let text = format!("text {number}");
        let written = here.call_tool("cached_write", json!({ "about": "x", "text": text })).await;
        assert_eq!(written.json["result"]["isError"], json!(false), "{written:?}");
        assert_eq!(written.json["result"]["_meta"].get("drawbridge/cache"), None, "{written:?}");
        let seen = ask(here, "look", about.clone()).await;
        assert_eq!((seen.told.as_str(), seen.hit), (text.as_str(), false));
        assert!(read(here, "note://x").await.text.contains(&text));
        tokio::time::sleep(SOON).await;
        assert_eq!(ask(there, "look", about.clone()).await.told, text);
        assert!(read(there, "note://x").await.text.contains(&text));
    }
}

#[tokio::test]
async fn a_read_that_was_under_way_does_not_bring_back_what_was_there_before() {
    let scene = Scene::start(2).await;
    let clients = [0, 1].map(|edge| scene.client(edge, "alice", "acme"));
    let slow = json!({ "about": "x", "milliseconds": 3000 });
    let reading = tokio::spawn({
        let (there, slow) = (clients[1].clone(), slow.clone());
        async move { ask(&there, "look", slow).await }
    });
    until("the read", async || scene.service.count("look", "x") == 1).await;
    clients[0].call_tool("cached_write", json!({ "about": "x", "text": "new" })).await;
    assert_ne!(reading.await.expect("an answer").told, "new", "it had read before");
    tokio::time::sleep(SOON).await;
    for client in &clients {
        assert_eq!(ask(client, "look", slow.clone()).await.told, "new");
    }
}

#[tokio::test]
async fn a_write_of_which_nobody_knows_the_end_is_seen_when_it_comes() {
    let scene = Scene::start(2).await;
    let clients = [0, 1].map(|edge| scene.client(edge, "alice", "acme"));
    let about = json!({ "about": "x" });
    let failed = clients[0]
        .call_tool(
            "cached_write",
            json!({ "about": "x", "text": "late", "late_milliseconds": 2000 }),
        )
        .await;
    assert_eq!(failed.error_code(), Some(-32053), "{failed:?}");
    for client in &clients {
        assert_eq!(ask(client, "look", about.clone()).await.told, "", "it is still to come");
    }
    // What was read meanwhile could be kept for ten minutes.
    for client in &clients {
        until("the write", async || ask(client, "look", about.clone()).await.told == "late").await;
    }
}
