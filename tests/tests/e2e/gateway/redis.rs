//! Redis deployments with several servers: a cluster, and a master with sentinels. The tests kill a
//! real master.

use std::{fs, time::Instant};

use drawbridge_proto::auth::v1::{revoke_response::Outcome, token_set::Which};
use drawbridge_tests::{Client, Edge, REPLICA_SECRET, RedisCluster, RedisSentinel, TestMesh};
use http::StatusCode;

use super::limits::{count_passed, metric, ping, until};
use crate::{
    auth::revocation::{platform, revoke_of},
    mcp::sessions::{list, open},
};

/// A limit whose refill during the test is less than one request.
const LIMIT: &str = "[limits]\nreplicas = 2\nredis_timeout_ms = 5000\n[[limit]]\nname = \"each\"\nby = \"principal\"\n\
                     rate = 12\nper_seconds = 864000\nwithout_redis = \"closed\"\n";

/// Checks two edges and two replicas of auth that share this Redis, before and after a fail-over.
#[expect(clippy::print_stderr, reason = "the output shows the timings")]
async fn check_failover(url: &str, kill: impl AsyncFnOnce()) {
    let mesh = TestMesh::with(|config| config.redis_url = Some(url.into())).await;
    let auth = mesh.auth(|config| config.redis_url = Some(url.into()));
    let replica = auth.start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    fs::write(&file, LIMIT).expect("a file");
    let code = mesh.mesh.state.services["code"].clone();
    let start = async |auth_url: &url::Url| {
        mesh.edge(&[("code", &code)], |config| {
            config.config = Some(file.clone());
            config.auth_urls = vec![auth_url.clone().into()];
            config.secret = Some(REPLICA_SECRET.into());
            config.redis_url = Some(url.into());
        })
        .await
    };
    let edges = [start(&mesh.mesh.state.auth_url).await, start(&auth.url).await];
    for edge in &edges {
        wait_for_redis(edge).await;
    }
    // The replicas share counters, sessions and revocations.
    let (alice, carol, frank) =
        (mesh.client("alice").await, mesh.client("carol").await, mesh.client("frank").await);
    let [here, there] = edges.each_ref().map(|edge| edge.client(&alice));
    assert_eq!((count_passed(&here, 5).await, count_passed(&there, 9).await), (5, 7));
    let session = open(&edges[0].client(&carol)).await;
    assert_eq!(list(&edges[1].client(&carol), &session).await.status, StatusCode::OK);
    let bob = revoked(&mesh, &edges, "bob").await;

    kill().await;
    let killed = Instant::now();
    for edge in &edges {
        // Requests are rejected during the fail-over, and answered after it.
        until("fail-over", async || ping(&edge.client(&frank)).await.status == StatusCode::OK)
            .await;
        wait_for_redis(edge).await;
    }
    eprintln!("a new master after {:?}", killed.elapsed());
    let lost = count_passed(&here, 12).await;
    eprintln!("the fail-over lost {lost} of 12 counted calls");
    let dave = mesh.client("dave").await;
    let [at_one, at_other] = edges.each_ref().map(|edge| edge.client(&dave));
    assert_eq!((count_passed(&at_other, 5).await, count_passed(&at_one, 9).await), (5, 7));
    let erin = revoked(&mesh, &edges, "erin").await;

    // New replicas find the existing sessions and revocations.
    let auth = mesh.auth(|config| config.redis_url = Some(url.into()));
    let third = auth.start().await;
    let edge = start(&auth.url).await;
    until("auth", async || ping(&edge.client(&frank)).await.status == StatusCode::OK).await;
    assert_eq!(list(&edge.client(&carol), &session).await.status, StatusCode::OK);
    for client in [bob, erin] {
        assert_eq!(ping(&edge.client(&client)).await.status, StatusCode::UNAUTHORIZED);
    }
    third.stop().await;
    replica.stop().await;
}

/// Revokes a user's tokens, and waits until every edge rejects them.
async fn revoked(mesh: &TestMesh, edges: &[Edge], user: &str) -> Client {
    let client = mesh.client(user).await;
    let issuer = mesh.mesh.state.issuer_name();
    let answer =
        revoke_of(mesh, &platform(mesh).await, issuer, Which::Subject(user.to_owned())).await;
    assert!(matches!(answer, Outcome::Revoked(_)), "{answer:?}");
    for edge in edges {
        let refused = async || ping(&edge.client(&client)).await.status == StatusCode::UNAUTHORIZED;
        until("the revocation", refused).await;
    }
    client
}

/// Waits until an edge is connected to Redis.
async fn wait_for_redis(edge: &Edge) {
    until("Redis", async || {
        metric(edge, "edge_limits_redis_available").await.as_deref() == Some("1")
    })
    .await;
}

#[tokio::test]
async fn all_replicas_share_a_cluster_and_follow_a_slot_to_its_new_master() {
    let mut cluster = RedisCluster::start().await;
    check_failover(&cluster.url.clone(), async || {
        cluster.kill_master_of("{drawbridge:limits}").await;
    })
    .await;
}

#[tokio::test]
async fn all_replicas_share_the_master_of_sentinels_and_follow_a_failover() {
    let mut servers = RedisSentinel::start().await;
    check_failover(&servers.url.clone(), async || servers.kill_master()).await;
}
