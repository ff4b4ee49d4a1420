use drawbridge_credentials::{CredentialsError, Outage};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

/// Expects a fast retryable error instead of a lease.
async fn expect_outage(credentials: &Credentials, caller: &VerifiedCaller) -> Outage {
    let began = Instant::now();
    let error = credentials.database(caller, &context(), ROLE).await.expect_err("no lease");
    assert!(began.elapsed() < SETTLE_TIMEOUT, "{:?}", began.elapsed());
    assert!(error.is_retryable(), "{error:?}");
    let CredentialsError::Unavailable(outage) = error else { panic!("{error:?}") };
    assert_eq!(tonic::Status::from(error).code(), tonic::Code::Unavailable);
    outage
}

#[tokio::test]
async fn while_vault_does_not_respond_cached_leases_work_and_new_ones_follow_its_recovery() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let (alice, bob) = (world.caller("alice").await, world.caller("bob").await);
    let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");

    world.vault.freeze(true);
    assert_eq!(expect_outage(&credentials, &bob).await, Outage::Timeout);
    let again = credentials.database(&alice, &context(), ROLE).await.expect("the cached lease");
    assert_eq!(again.username, lease.username);
    // The circuit breaker opens: further requests fail at once.
    while expect_outage(&credentials, &bob).await != Outage::CircuitOpen {}
    world.vault.freeze(false);
    let thawed = Instant::now();
    while let Err(error) = credentials.database(&world.caller("bob").await, &context(), ROLE).await
    {
        assert!(thawed.elapsed() < SETTLE_TIMEOUT, "it does not recover: {error:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    credentials.close().await;
}

#[tokio::test]
async fn a_session_revoked_in_vault_is_replaced() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let missing = credentials.secret(&alice, &context(), "helpdesk").await.expect_err("no secret");
    assert!(matches!(missing, CredentialsError::NoSuchSecret), "{missing:?}");
    let (status, _) = world
        .vault
        .request(Method::POST, "sys/leases/revoke-prefix/auth/drawbridge/login", json!({}))
        .await;
    assert!(status.is_success(), "{status}");
    credentials.database(&alice, &context(), ROLE).await.expect("a lease of another session");
    assert_eq!(world.vault.responses("auth/drawbridge/login").len(), 2);
    credentials.close().await;
}

#[test]
fn no_secret_is_logged_in_normal_operation_nor_while_vault_is_sealed_or_down() {
    let secrets: Arc<Mutex<Vec<String>>> = Arc::default();
    let recorder = Arc::clone(&secrets);
    let (log, metrics) = observed(move || async move {
        let world = World::start(|_| {}).await;
        let credentials = world.credentials();
        let (alice, bob) = (world.caller("alice").await, world.caller("bob").await);
        let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
        // The secrets in Vault's requests and responses that the test can obtain.
        let login = json!({ "role": "code", "jwt": world.transaction_token("alice").await });
        let jwt = login["jwt"].as_str().expect("a token").to_owned();
        world.vault.seal().await;
        assert_eq!(expect_outage(&credentials, &bob).await, Outage::NotReady);
        credentials.database(&alice, &context(), ROLE).await.expect("the cached lease");
        let root_token = world.vault.root_token.clone();
        drop(world.vault);
        // The circuit breaker may be open by now.
        let outage = expect_outage(&credentials, &bob).await;
        assert!(matches!(outage, Outage::Unreachable | Outage::CircuitOpen), "{outage:?}");
        // All transaction tokens have the same header.
        let jwt_header = jwt.split('.').next().expect("a header").to_owned();
        let mut recorded = recorder.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.extend([lease.password.expose_secret().to_owned(), root_token, jwt_header]);
        recorded.push(world.postgres.owner().1.to_owned());
    });
    assert!(log.contains("credentials are unavailable: Vault is sealed"), "{log}");
    assert!(log.contains("hyper"), "the log lacks the level trace");
    for secret in secrets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        assert!(!log.contains(secret.as_str()), "{secret} is in the log");
        assert!(!metrics.contains(secret.as_str()), "{secret} is in the metrics");
    }
    assert!(
        !log.split(|char: char| !char.is_ascii_alphanumeric() && char != '.').any(is_vault_token),
        "{log}"
    );
    for operation in ["login", "lease"] {
        let counted =
            format!("credentials_operations_total{{operation=\"{operation}\",outcome=\"ok\"}} 1");
        assert!(metrics.contains(&counted), "{metrics}");
    }
    assert!(metrics.contains("operation=\"login\",outcome=\"unavailable\""), "{metrics}");
    assert!(metrics.contains("credentials_expiry_min_seconds"), "{metrics}");
}

/// Vault's tokens are `s.` and 24 letters and digits.
fn is_vault_token(word: &str) -> bool {
    word.strip_prefix("s.").is_some_and(|rest| rest.len() >= 24 && !rest.contains('.'))
}
