use drawbridge_credentials::{CredentialsError, DatabaseLease};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

/// The database user of a lease, as the database reports it.
fn user_of(world: &World, lease: &DatabaseLease) -> Result<String, String> {
    let rows = world.postgres.query_as(
        &lease.username,
        lease.password.expose_secret(),
        "select current_user",
    )?;
    Ok(rows.concat())
}

#[tokio::test]
async fn each_caller_has_its_own_database_user_which_is_removed_at_revocation_and_at_shutdown() {
    let world = World::start(|_| {}).await;
    assert_eq!(world.postgres.leased_users(), [""; 0]);
    let credentials = world.credentials();
    let (alice, bob) = (world.caller("alice").await, world.caller("bob").await);
    let of_alice = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
    let of_bob = credentials.database(&bob, &context(), ROLE).await.expect("a lease");

    assert_ne!(of_alice.username, of_bob.username);
    for lease in [&of_alice, &of_bob] {
        assert!(lease.username.starts_with("v-") && lease.is_usable(), "{lease:?}");
        assert_eq!(user_of(&world, lease).expect("a user"), lease.username);
    }
    assert_eq!(world.postgres.leased_users().len(), 2);

    credentials.revoke(alice.principal()).await;
    let remains = || world.postgres.leased_users() == [of_bob.username.clone()];
    eventually("alice's user is removed, and bob's is not", SETTLE_TIMEOUT, remains).await;
    assert!(!of_alice.is_usable() && of_bob.is_usable());
    of_alice.ended().await;
    user_of(&world, &of_alice).expect_err("no user");

    credentials.close().await;
    // Vault revokes the leases of a session asynchronously.
    let none = || world.postgres.leased_users().is_empty();
    eventually("every user is removed", SETTLE_TIMEOUT, none).await;
    assert!(!of_bob.is_usable());
    let closed = credentials.database(&bob, &context(), ROLE).await.expect_err("it is closed");
    assert!(matches!(closed, CredentialsError::Closed), "{closed:?}");
}

#[tokio::test]
async fn a_lease_is_renewed_while_in_use_and_revoked_when_idle() {
    let world = World::start(|setup| {
        setup.services[0].database_roles[0].ttl_seconds = 4.into();
        setup.services[0].ttl_seconds = 4.into();
    })
    .await;
    let limits = CredentialLimits { idle: Duration::from_secs(2), ..CredentialLimits::default() };
    let credentials = world.credentials_of("code", limits);
    let alice = world.caller("alice").await;
    let first = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(9) {
        let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
        assert_eq!(lease.username, first.username, "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(user_of(&world, &first).expect("a user"), first.username);
    assert!(world.vault.responses("sys/leases/renew").len() >= 2);
    assert!(world.vault.responses("auth/token/renew-self").len() >= 2);

    let none = || world.postgres.leased_users().is_empty();
    eventually("the idle lease is revoked", SETTLE_TIMEOUT, none).await;
    assert_eq!(world.vault.responses("auth/token/revoke-self").len(), 1);
    credentials.close().await;
}

#[tokio::test]
async fn a_token_for_one_service_gets_no_credentials_of_another() {
    let world = World::start(|_| {}).await;
    let alice = world.caller("alice").await;
    let tickets = world.credentials_of("tickets", CredentialLimits::default());
    let refused = tickets.database(&alice, &context(), ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Refused { .. }), "{refused:?}");
    assert!(!refused.is_retryable());
    assert_eq!(tonic::Status::from(refused).code(), tonic::Code::PermissionDenied);
    assert_eq!(world.postgres.leased_users(), [""; 0]);

    // Within its own service, a role outside the policy is rejected, and existing leases survive.
    let credentials = world.credentials();
    let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
    let refused = credentials.database(&alice, &context(), "owner").await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Refused { status: 403, .. }), "{refused:?}");
    assert!(lease.is_usable());
    credentials.close().await;
}

#[tokio::test]
async fn a_tenant_reads_only_its_own_secrets() {
    let world = World::start(|_| {}).await;
    for (tenant, token) in [("acme", "of-acme"), ("globex", "of-globex")] {
        let path = format!("secret/data/{tenant}/code/helpdesk");
        let (status, answer) =
            world.vault.request(Method::POST, &path, json!({ "data": { "token": token } })).await;
        assert!(status.is_success(), "{answer}");
    }
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let secret = credentials.secret(&alice, &context(), "helpdesk").await.expect("a secret");
    assert_eq!(secret.field("token").expect("a field").expose_secret(), "of-acme");
    assert!(secret.field("other").is_none());
    let missing = credentials.secret(&alice, &context(), "nothing").await.expect_err("no secret");
    assert!(matches!(missing, CredentialsError::NoSuchSecret), "{missing:?}");

    // Vault itself rejects the paths of other tenants and services.
    let login = json!({ "role": "code", "jwt": world.transaction_token("alice").await });
    let (_, session) =
        world.vault.request_as("", Method::POST, "auth/drawbridge/login", login).await;
    let token =
        session["auth"]["client_token"].as_str().unwrap_or_else(|| panic!("no login: {session}"));
    let own = world
        .vault
        .request_as(token, Method::GET, "secret/data/acme/code/helpdesk", json!({}))
        .await;
    assert_eq!(own.1["data"]["data"]["token"], "of-acme", "{own:?}");
    for other in ["globex/code/helpdesk", "acme/tickets/helpdesk"] {
        let answer = world
            .vault
            .request_as(token, Method::GET, &format!("secret/data/{other}"), json!({}))
            .await;
        assert_eq!(answer.0, 403, "{answer:?}");
    }
    credentials.close().await;
}
