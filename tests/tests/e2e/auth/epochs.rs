//! What replicas of auth announce of their state.

use std::time::Duration;

use drawbridge_proto::auth::v1::{
    self as pb, introspect_response::Status as TokenStatus, token_set::Which,
};
use drawbridge_tests::{Redis, TestMesh};

use super::{
    keys::{introspect, mint, own, ready, watch},
    revocation::revoke_at,
};
use crate::gateway::limits::until;

#[tokio::test]
async fn replicas_in_the_same_state_announce_the_same_epoch() {
    let redis = Redis::start().await;
    let mesh = TestMesh::start().await;
    let auths =
        [(); 2].map(|()| mesh.auth(|config| config.redis_url = Some(redis.url.as_str().into())));
    let (one, two) = tokio::join!(ready(&auths[0]), ready(&auths[1]));
    let now = async || {
        let mut epochs = Vec::new();
        for auth in &auths {
            epochs.push(watch(auth).await.expect("an epoch"));
        }
        epochs
    };
    until("the revocations are read", async || {
        watch(&auths[0]).await.is_ok() && watch(&auths[1]).await.is_ok()
    })
    .await;
    let before = now().await;
    assert_eq!(before[0], before[1]);
    assert!(before[0].epoch != 0 && before[0].revocations != 0 && before[0].heartbeat_ms != 0);

    let policy =
        "permit (principal, action in [Action::\"call_tool\"], resource in Service::\"code\");";
    mesh.write_policy("more.cedar", &format!("@id(\"more\")\n{policy}\n"));
    let is_next = |now: &[pb::WatchResponse], before: &[pb::WatchResponse]| {
        now[0] == now[1] && now[0].epoch != before[0].epoch
    };
    until("both have the new policies", async || is_next(&now().await, &before)).await;
    let edited = now().await;
    assert_eq!(edited[0].revocations, before[0].revocations);

    revoke_at(&auths[0].url, &mesh, Which::Subject("alice".to_owned())).await;
    until("both have the revocation", async || is_next(&now().await, &edited)).await;
    let revoked = now().await;
    assert_ne!(revoked[0].revocations, edited[0].revocations);
    assert!(revoked[0].revoked > edited[0].revoked);

    two.stop().await;
    let two = ready(&auths[1]).await;
    until("the restarted replica agrees", async || {
        watch(&auths[1]).await.is_ok_and(|epoch| epoch == revoked[0])
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_revocation_that_redis_has_lost_is_restored_by_the_replicas_that_know_it() {
    let redis = Redis::start().await;
    let mesh = TestMesh::start().await;
    let auth = mesh.auth(|config| config.redis_url = Some(redis.url.as_str().into()));
    let running = ready(&auth).await;
    let token = mint(&auth, &own(&mesh, "alice").await).await;
    until("the revocations are read", async || watch(&auth).await.is_ok()).await;
    revoke_at(&auth.url, &mesh, Which::Subject("alice".to_owned())).await;
    let client = redis::Client::open(redis.url.as_str()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis");
    let _: String = redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("an answer");
    let mut count = async || -> u64 {
        let list = "{drawbridge:auth}:revocations";
        redis::cmd("HLEN").arg(list).query_async(&mut connection).await.expect("a length")
    };
    let began = std::time::Instant::now();
    while count().await == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "the revocation is lost");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await;
    let running = auth.start().await;
    until("a restarted replica knows it", async || {
        watch(&auth).await.is_ok() && introspect(&auth, &[&token]).await.1 == [TokenStatus::Revoked]
    })
    .await;
    running.stop().await;
}
