use drawbridge_sdk::credentials::{CredentialsError, Outage};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

/// No lease, but a reason to try again, in time.
async fn gets_none_now(credentials: &Credentials, caller: &Caller) -> Outage {
    let began = Instant::now();
    let error = credentials.database(caller, &context(), ROLE).await.expect_err("no lease");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(error.is_retryable(), "{error:?}");
    let CredentialsError::Unavailable(outage) = error else { panic!("{error:?}") };
    assert_eq!(tonic::Status::from(error).code(), tonic::Code::Unavailable);
    outage
}

#[tokio::test]
async fn while_vault_does_not_answer_leases_in_hand_go_on_and_it_recovers_alone() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let (alice, bob) = (world.caller("alice").await, world.caller("bob").await);
    let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");

    world.vault.freeze(true);
    assert_eq!(gets_none_now(&credentials, &bob).await, Outage::Timeout);
    let again = credentials.database(&alice, &context(), ROLE).await.expect("the lease in hand");
    assert_eq!(again.username, lease.username);
    // It is not asked again and again: soon the answer is there at once.
    while gets_none_now(&credentials, &bob).await != Outage::CircuitOpen {}
    world.vault.freeze(false);
    let thawed = Instant::now();
    while let Err(error) = credentials.database(&world.caller("bob").await, &context(), ROLE).await
    {
        assert!(thawed.elapsed() < SOON, "it does not recover: {error:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    credentials.close().await;
}

#[tokio::test]
async fn a_session_that_vault_has_forgotten_is_replaced() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let missing = credentials.secret(&alice, &context(), "helpdesk").await.expect_err("no secret");
    assert!(matches!(missing, CredentialsError::NoSuchSecret), "{missing:?}");
    let (status, _) = world
        .vault
        .ask(Method::POST, "sys/leases/revoke-prefix/auth/drawbridge/login", json!({}))
        .await;
    assert!(status.is_success(), "{status}");
    credentials.database(&alice, &context(), ROLE).await.expect("a lease of another session");
    assert_eq!(world.vault.answered("auth/drawbridge/login").len(), 2);
    credentials.close().await;
}

#[test]
fn nothing_secret_is_logged_when_all_goes_well_and_when_vault_is_sealed_or_gone() {
    let secrets: Arc<Mutex<Vec<String>>> = Arc::default();
    let noting = Arc::clone(&secrets);
    let (log, metrics) = observed(move || async move {
        let world = World::start(|_| {}).await;
        let credentials = world.credentials();
        let (alice, bob) = (world.caller("alice").await, world.caller("bob").await);
        let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
        // What Vault was asked and answered, from tokens to passwords, as far as the test can have it.
        let login = json!({ "role": "code", "jwt": world.transaction_token("alice").await });
        let jwt = login["jwt"].as_str().expect("a token").to_owned();
        world.vault.seal().await;
        assert_eq!(gets_none_now(&credentials, &bob).await, Outage::NotReady);
        credentials.database(&alice, &context(), ROLE).await.expect("the lease in hand");
        let root_token = world.vault.root_token.clone();
        drop(world.vault);
        // By now it may have failed so often that it is not asked any more.
        let outage = gets_none_now(&credentials, &bob).await;
        assert!(matches!(outage, Outage::Unreachable | Outage::CircuitOpen), "{outage:?}");
        // All transaction tokens begin alike.
        let jwt_begins = jwt.split('.').next().expect("a header").to_owned();
        let mut noted = noting.lock().unwrap_or_else(PoisonError::into_inner);
        noted.extend([lease.password.expose_secret().to_owned(), root_token, jwt_begins]);
        noted.push(world.postgres.owner().1.to_owned());
    });
    assert!(log.contains("credentials cannot be had now: Vault is sealed"), "{log}");
    assert!(log.contains("rustify") || log.contains("hyper"), "the log is not one of everything");
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
    assert!(metrics.contains("credentials_seconds_to_expiry_min"), "{metrics}");
}

/// Vault's tokens are `s.` and 24 letters and digits.
fn is_vault_token(word: &str) -> bool {
    word.strip_prefix("s.").is_some_and(|rest| rest.len() >= 24 && !rest.contains('.'))
}
