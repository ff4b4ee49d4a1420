//! The cache during an outage of Redis, and after it.

use std::time::Duration;

use drawbridge_tests::{RedisCluster, RedisSentinel};
use serde_json::json;

use super::{CacheTest, call, until};

/// The time limit for a write to be visible on every replica.
const PROPAGATION_MAX: Duration = Duration::from_secs(1);

#[tokio::test]
async fn without_redis_no_tagged_result_is_cached_and_no_older_entry_returns() {
    let mut test = CacheTest::start(2).await;
    let clients = [0, 1].map(|edge| test.client(edge, "alice", "acme"));
    let about = json!({ "about": "x" });
    let write = async |edge: usize, text: &str| {
        clients[edge].call_tool("cached_write", json!({ "about": "x", "text": text })).await
    };
    write(0, "before").await;
    for client in &clients {
        for tool in ["look", "tenant1"] {
            call(client, tool, about.clone()).await;
        }
    }
    assert!(call(&clients[1], "tenant1", about.clone()).await.hit);

    test.redis.as_mut().expect("Redis").kill();
    test.wait_for_redis(false).await;
    write(0, "meanwhile").await;
    for client in &clients {
        for _ in 0..2 {
            let result = call(client, "look", about.clone()).await;
            assert_eq!((result.value.as_str(), result.hit), ("meanwhile", false));
        }
        // No write invalidates this untagged result: each replica uses its own entry.
        assert!(call(client, "tenant1", about.clone()).await.hit);
    }
    assert!(!call(&clients[0], "tenant2", about.clone()).await.hit);
    assert!(call(&clients[0], "tenant2", about.clone()).await.hit);
    assert!(
        !call(&clients[1], "tenant2", about.clone()).await.hit,
        "replicas share nothing without Redis"
    );

    test.redis.as_mut().expect("Redis").restart().await;
    test.wait_for_redis(true).await;
    for client in &clients {
        assert_eq!(call(client, "look", about.clone()).await.value, "meanwhile");
        assert!(call(client, "look", about.clone()).await.hit);
    }
    write(1, "after").await;
    assert_eq!(call(&clients[1], "look", about.clone()).await.value, "after");
    assert!(!call(&clients[0], "tenant3", about.clone()).await.hit);
    assert!(call(&clients[1], "tenant3", about.clone()).await.hit, "replicas share again");
}

/// Checks that replicas share results and see one another's writes at this URL, before and after a
/// fail-over.
async fn check_shared(url: &str, kill: impl AsyncFnOnce()) {
    let test = CacheTest::over(2, Some(url), |_| {}).await;
    let clients = [0, 1].map(|edge| test.client(edge, "alice", "acme"));
    let is_shared = async |text: &str| {
        let about = json!({ "about": "x" });
        let written =
            clients[0].call_tool("cached_write", json!({ "about": "x", "text": text })).await;
        assert_eq!(written.json["result"]["isError"], json!(false), "{written:?}");
        assert_eq!(call(&clients[0], "look", about.clone()).await.value, text);
        tokio::time::sleep(PROPAGATION_MAX).await;
        assert_eq!(call(&clients[1], "look", about.clone()).await.value, text);
        let fresh = json!({ "about": text });
        call(&clients[0], "tenant1", fresh.clone()).await;
        let tagged = call(&clients[0], "look", about.clone()).await.hit;
        tagged && call(&clients[1], "tenant1", fresh).await.hit
    };
    assert!(is_shared("before").await);
    kill().await;
    let attempts = std::sync::atomic::AtomicU32::new(0);
    until("fail-over", async || {
        let attempt = attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        is_shared(&format!("after {attempt}")).await
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_shared_by_all_replicas_before_and_after_a_fail_over() {
    let mut cluster = RedisCluster::start().await;
    check_shared(&cluster.url.clone(), async || {
        cluster.kill_master_of("drawbridge:cache:tags").await;
    })
    .await;
}

#[tokio::test]
async fn the_master_of_sentinels_is_shared_by_all_replicas_before_and_after_a_fail_over() {
    let mut servers = RedisSentinel::start().await;
    check_shared(&servers.url.clone(), async || servers.kill_master()).await;
}
