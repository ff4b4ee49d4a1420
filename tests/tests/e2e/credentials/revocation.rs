use drawbridge_proto::auth::v1::token_set::Which;
use drawbridge_sdk::credentials::CredentialsError;
use drawbridge_tests::connect;

use super::*;
use crate::auth::revocation::{platform, revoke_of};

#[tokio::test]
async fn what_somebody_has_who_is_revoked_at_auth_is_taken_back_until_they_sign_in_again() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let auth = &world.mesh.mesh.state.auth_url;
    credentials.follow_revocations(connect(auth).expect("a channel"));
    let (alice, bob) = (world.caller("alice").await, world.caller("bob").await);
    let of_alice = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
    let of_bob = credentials.database(&bob, &context(), ROLE).await.expect("a lease");

    let issuer = world.mesh.mesh.state.issuer_name();
    let platform = platform(&world.mesh).await;
    revoke_of(&world.mesh, &platform, issuer, Which::Subject("alice".to_owned())).await;
    tokio::time::timeout(SOON, of_alice.ended()).await.expect("the end of alice's lease");
    let left = || world.postgres.leased_users() == [of_bob.username.clone()];
    eventually("alice's user is gone, and bob's is not", SOON, left).await;
    assert!(of_bob.is_usable());

    // Her transaction token lives for some seconds yet, and Vault would take it.
    let refused = credentials.database(&alice, &context(), ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Revoked), "{refused:?}");
    // Tokens of the second in which she was revoked count as older.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let again = world.caller("alice").await;
    let lease = credentials.database(&again, &context(), ROLE).await.expect("a lease");
    assert_ne!(lease.username, of_alice.username);
    credentials.close().await;
}

#[tokio::test]
async fn a_client_that_is_revoked_takes_along_what_was_given_through_it() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
    // Who begins to listen later hears of it as well.
    let (issuer, client) =
        (world.mesh.mesh.state.issuer_name(), alice.claims.tctx.client_id.clone());
    let platform = platform(&world.mesh).await;
    revoke_of(&world.mesh, &platform, issuer, Which::ClientId(client)).await;
    credentials.follow_revocations(connect(&world.mesh.mesh.state.auth_url).expect("a channel"));
    tokio::time::timeout(SOON, lease.ended()).await.expect("the end of the lease");
    credentials.close().await;
}
