//! Redis that dies under the cache, and comes back.

use serde_json::json;

use super::{Scene, ask};

#[tokio::test]
async fn without_redis_nothing_tagged_is_kept_and_nothing_that_was_comes_back() {
    let mut scene = Scene::start(2).await;
    let clients = [0, 1].map(|edge| scene.client(edge, "alice", "acme"));
    let about = json!({ "about": "x" });
    let write = async |edge: usize, text: &str| {
        clients[edge].call_tool("cached_write", json!({ "about": "x", "text": text })).await
    };
    write(0, "before").await;
    for client in &clients {
        for tool in ["look", "tenant1"] {
            ask(client, tool, about.clone()).await;
        }
    }
    assert!(ask(&clients[1], "tenant1", about.clone()).await.hit);

    scene.redis.as_mut().expect("Redis").kill();
    scene.redis_is(false).await;
    write(0, "meanwhile").await;
    for client in &clients {
        for _ in 0..2 {
            let seen = ask(client, "look", about.clone()).await;
            assert_eq!((seen.told.as_str(), seen.hit), ("meanwhile", false));
        }
        // Nobody's write makes this outdated: each replica goes on with what it has.
        assert!(ask(client, "tenant1", about.clone()).await.hit);
    }
    assert!(!ask(&clients[0], "tenant2", about.clone()).await.hit);
    assert!(ask(&clients[0], "tenant2", about.clone()).await.hit);
    assert!(!ask(&clients[1], "tenant2", about.clone()).await.hit, "replicas share nothing now");

    scene.redis.as_mut().expect("Redis").start_again().await;
    scene.redis_is(true).await;
    for client in &clients {
        assert_eq!(ask(client, "look", about.clone()).await.told, "meanwhile");
        assert!(ask(client, "look", about.clone()).await.hit);
    }
    write(1, "after").await;
    assert_eq!(ask(&clients[1], "look", about.clone()).await.told, "after");
    assert!(!ask(&clients[0], "tenant3", about.clone()).await.hit);
    assert!(ask(&clients[1], "tenant3", about.clone()).await.hit, "replicas share again");
}
