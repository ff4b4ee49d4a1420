//! Redis that dies under the cache, and comes back.

use std::time::Duration;

use drawbridge_tests::{RedisCluster, RedisSentinel};
use serde_json::json;

use super::{Scene, ask, until};

/// Within this time a write is seen everywhere.
const SOON: Duration = Duration::from_secs(1);

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

/// Replicas share results at this URL and see one another's writes, and do again after a fail-over.
async fn shared(url: &str, kill: impl AsyncFnOnce()) {
    let scene = Scene::over(2, Some(url), |_| {}).await;
    let clients = [0, 1].map(|edge| scene.client(edge, "alice", "acme"));
    let works = async |text: &str| {
        let about = json!({ "about": "x" });
        let written =
            clients[0].call_tool("cached_write", json!({ "about": "x", "text": text })).await;
        assert_eq!(written.json["result"]["isError"], json!(false), "{written:?}");
        assert_eq!(ask(&clients[0], "look", about.clone()).await.told, text);
        tokio::time::sleep(SOON).await;
        assert_eq!(ask(&clients[1], "look", about.clone()).await.told, text);
        let fresh = json!({ "about": text });
        ask(&clients[0], "tenant1", fresh.clone()).await;
        let tagged = ask(&clients[0], "look", about.clone()).await.hit;
        tagged && ask(&clients[1], "tenant1", fresh).await.hit
    };
    assert!(works("before").await);
    kill().await;
    let attempts = std::sync::atomic::AtomicU32::new(0);
    until("fail-over", async || {
        let attempt = attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        works(&format!("after {attempt}")).await
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_shared_by_all_replicas_before_and_after_a_fail_over() {
    let mut cluster = RedisCluster::start().await;
    shared(&cluster.url.clone(), async || cluster.kill_master_of("drawbridge:cache:tags").await)
        .await;
}

#[tokio::test]
async fn the_master_of_sentinels_is_shared_by_all_replicas_before_and_after_a_fail_over() {
    let mut servers = RedisSentinel::start().await;
    shared(&servers.url.clone(), async || servers.kill_master()).await;
}
