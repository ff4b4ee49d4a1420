//! Redis that is more than one server: a cluster, and a master that sentinels watch over. Real ones, whose master dies.

use std::{fs, time::Instant};

use drawbridge_proto::auth::v1::{revoke_response::Outcome, token_set::Which};
use drawbridge_tests::{Client, Edge, RedisCluster, RedisSentinel, TestMesh};
use http::StatusCode;

use super::limits::{metric, passing, ping, until};
use crate::{
    auth::revocation::{platform, revoke_of},
    mcp::sessions::{list, open},
};

/// How often each may, and nothing worth a request comes back while the test runs.
const LIMIT: &str = "[limits]\nreplicas = 2\nredis_timeout_ms = 5000\n[[limit]]\nname = \"each\"\nby = \"principal\"\n\
                     rate = 12\nper_seconds = 864000\nwithout_redis = \"closed\"\n";

/// Two edges, two replicas of auth, and all that they share there.
#[expect(clippy::print_stderr, reason = "the figures are for people")]
async fn holds(url: &str, kill: impl AsyncFnOnce()) {
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
            config.auth_url = auth_url.clone().into();
            config.secret = Some("one secret for both".into());
            config.redis_url = Some(url.into());
        })
        .await
    };
    let edges = [start(&mesh.mesh.state.auth_url).await, start(&auth.url).await];
    for edge in &edges {
        counts(edge).await;
    }
    // What one replica has counted, opened and heard, the other knows.
    let (alice, carol, frank) =
        (mesh.client("alice").await, mesh.client("carol").await, mesh.client("frank").await);
    let [here, there] = edges.each_ref().map(|edge| edge.client(&alice));
    assert_eq!((passing(&here, 5).await, passing(&there, 9).await), (5, 7));
    let session = open(&edges[0].client(&carol)).await;
    assert_eq!(list(&edges[1].client(&carol), &session).await.status, StatusCode::OK);
    let bob = revoked(&mesh, &edges, "bob").await;

    kill().await;
    let killed = Instant::now();
    for edge in &edges {
        // Whatever does not know, refuses; and what knows again, answers.
        until("fail-over", async || ping(&edge.client(&frank)).await.status == StatusCode::OK)
            .await;
        counts(edge).await;
    }
    eprintln!("another master after {:?}", killed.elapsed());
    let left = passing(&here, 12).await;
    eprintln!("of 12 calls that were taken before, {left} were forgotten");
    let dave = mesh.client("dave").await;
    let [at_one, at_other] = edges.each_ref().map(|edge| edge.client(&dave));
    assert_eq!((passing(&at_other, 5).await, passing(&at_one, 9).await), (5, 7));
    let erin = revoked(&mesh, &edges, "erin").await;

    // Replicas that start now find what was there before.
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

/// Revokes what a person has, and waits until every edge refuses it.
async fn revoked(mesh: &TestMesh, edges: &[Edge], person: &str) -> Client {
    let client = mesh.client(person).await;
    let issuer = mesh.mesh.state.issuer_name();
    let answer =
        revoke_of(mesh, &platform(mesh).await, issuer, Which::Subject(person.to_owned())).await;
    assert!(matches!(answer, Outcome::Revoked(_)), "{answer:?}");
    for edge in edges {
        let refused = async || ping(&edge.client(&client)).await.status == StatusCode::UNAUTHORIZED;
        until("the revocation", refused).await;
    }
    client
}

/// Waits until an edge counts in Redis.
async fn counts(edge: &Edge) {
    until("Redis", async || {
        metric(edge, "edge_limits_redis_available").await.as_deref() == Some("1")
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_shared_by_all_replicas_and_they_follow_a_slot_to_its_new_master() {
    let mut cluster = RedisCluster::start().await;
    holds(&cluster.url.clone(), async || cluster.kill_master_of("{drawbridge:limits}").await).await;
}

#[tokio::test]
async fn the_master_that_sentinels_name_is_shared_by_all_replicas_and_they_follow_them_to_the_next()
{
    let mut servers = RedisSentinel::start().await;
    holds(&servers.url.clone(), async || servers.kill_master()).await;
}
