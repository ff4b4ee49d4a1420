//! The end of streams with the permission of their caller.

use drawbridge_tests::now;
use http::{Method, StatusCode};
use serde_json::json;

use super::{Stream, World, begin, initialize, listen, request};
use crate::{
    auth::revocation::{platform, revoke_of},
    mcp::sessions::list,
};

/// The attack: GET and `subscriptions/listen` stayed open after the token had expired.
#[tokio::test]
async fn streams_end_when_their_token_expires() {
    let world = World::start(|_| {}).await;
    let expires = now() + 6;
    let erin = world.client(json!({ "exp": expires }));
    let session = initialize(&erin).await.1.expect("a session");
    let mut standalone = Stream::open(request(&erin, Method::GET, &session)).await;
    let mut subscription = Stream::open(listen(&erin)).await;
    let mut call =
        begin(&erin, &session, "test_slow_work", json!({ "milliseconds": 60_000 })).await;
    subscription.until("acknowledged").await;
    let (_, rest, _) = tokio::join!(standalone.end(), subscription.end(), call.end());
    assert!(now() >= expires, "they ended before the expiry");
    assert!(rest.contains(r#""resultType":"complete""#), "{rest}");
}

/// The attack: both stayed open after the token was revoked.
#[tokio::test]
async fn streams_end_when_their_token_is_revoked() {
    let world = World::start(|_| {}).await;
    let (erin, other) = (world.client(json!({})), world.client(json!({ "sub": "frank" })));
    let (session, others) = (
        initialize(&erin).await.1.expect("a session"),
        initialize(&other).await.1.expect("a session"),
    );
    let mut standalone = Stream::open(request(&erin, Method::GET, &session)).await;
    let mut subscription = Stream::open(listen(&erin)).await;
    let mut call =
        begin(&erin, &session, "test_slow_work", json!({ "milliseconds": 60_000 })).await;
    let mut unrevoked = Stream::open(listen(&other)).await;
    subscription.until("resources/updated").await;
    let which = drawbridge_proto::auth::v1::token_set::Which::Subject("erin".to_owned());
    revoke_of(&world.mesh, &platform(&world.mesh).await, world.issuer.name(), which).await;
    tokio::join!(standalone.end(), subscription.end(), call.end());
    unrevoked.until("resources/updated").await;
    assert_eq!(list(&other, &others).await.status, StatusCode::OK);
}

/// The attack: a subscription stayed open after policy no longer permitted it.
#[tokio::test]
async fn a_subscription_ends_when_policy_no_longer_permits_it() {
    let world = World::start(|_| {}).await;
    let (erin, boss) =
        (world.client(json!({})), world.client(json!({ "groups": ["engineering", "bosses"] })));
    let mut subscription = Stream::open(listen(&erin)).await;
    let mut allowed = Stream::open(listen(&boss)).await;
    subscription.until("resources/updated").await;
    world.mesh.edit_policy("test.cedar", r#"Group::"engineering""#, r#"Group::"bosses""#);
    let rest = subscription.end().await;
    assert!(rest.contains(r#""resultType":"complete""#), "{rest}");
    allowed.until("resources/updated").await;
}
