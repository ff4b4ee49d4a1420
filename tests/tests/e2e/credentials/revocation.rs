use drawbridge_credentials::CredentialsError;
use drawbridge_proto::auth::v1::token_set::Which;
use drawbridge_tests::connect;

use super::*;
use crate::auth::revocation::{platform, revoke_at, revoke_of};

#[tokio::test]
async fn leases_of_a_subject_revoked_at_auth_are_revoked_until_it_signs_in_again() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let auth = &world.mesh.mesh.state.auth_url;
    credentials.watch_revocations(connect(auth).expect("a channel"));
    let (alice, bob) = (world.caller("alice").await, world.caller("bob").await);
    let of_alice = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
    let of_bob = credentials.database(&bob, &context(), ROLE).await.expect("a lease");

    let issuer = world.mesh.mesh.state.issuer_name();
    let platform = platform(&world.mesh).await;
    revoke_of(&world.mesh, &platform, issuer, Which::Subject("alice".to_owned())).await;
    tokio::time::timeout(SETTLE_TIMEOUT, of_alice.ended()).await.expect("the end of alice's lease");
    let remains = || world.postgres.leased_users() == [of_bob.username.clone()];
    eventually("alice's user is removed, and bob's is not", SETTLE_TIMEOUT, remains).await;
    assert!(of_bob.is_usable());

    // Her transaction token is valid for some more seconds, and Vault would accept it.
    let refused = credentials.database(&alice, &context(), ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Revoked), "{refused:?}");
    // The revocation covers tokens issued within the same second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let again = world.caller("alice").await;
    let lease = credentials.database(&again, &context(), ROLE).await.expect("a lease");
    assert_ne!(lease.username, of_alice.username);
    credentials.close().await;
}

/// Each lease whose transaction token auth could not verify was once revoked with the next
/// revocation, of whatever subject.
#[tokio::test]
async fn a_restart_of_auth_ends_the_leases_of_revoked_subjects_alone() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let mut leases = Vec::new();
    for user in ["alice", "bob", "carol"] {
        let caller = world.caller(user).await;
        leases.push(credentials.database(&caller, &context(), ROLE).await.expect("a lease"));
    }
    // It knows none of the keys that signed their transaction tokens.
    let auth = world.mesh.auth(|_| {});
    let running = auth.start().await;
    credentials.watch_revocations(connect(&auth.url).expect("a channel"));
    for (lease, revoked) in [(1, "bob"), (2, "carol")] {
        revoke_at(&auth.url, &world.mesh, Which::Subject(revoked.to_owned())).await;
        tokio::time::timeout(SETTLE_TIMEOUT, leases[lease].ended()).await.expect("its end");
    }
    assert!(leases[0].is_usable(), "alice is not revoked");
    credentials.close().await;
    running.stop().await;
}

#[tokio::test]
async fn revoking_a_client_revokes_the_leases_granted_through_it() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
    // A subscriber that starts after the revocation receives it too.
    let (issuer, client) =
        (world.mesh.mesh.state.issuer_name(), alice.claims.tctx.client_id.clone());
    let platform = platform(&world.mesh).await;
    revoke_of(&world.mesh, &platform, issuer, Which::ClientId(client)).await;
    credentials.watch_revocations(connect(&world.mesh.mesh.state.auth_url).expect("a channel"));
    tokio::time::timeout(SETTLE_TIMEOUT, lease.ended()).await.expect("the end of the lease");
    credentials.close().await;
}
