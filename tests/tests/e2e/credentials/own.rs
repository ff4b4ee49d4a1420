use std::fs;

use axum::{Json, Router, extract::State, routing::post, serve::Listener as _};
use drawbridge_config::setup::{Approle, Kubernetes, ServiceAccount};
use drawbridge_credentials::{CredentialsError, LoginMethod, Outage, VaultLogin};
use drawbridge_tests::{TestAuthority, TestIssuer, TlsListener};
use jsonwebtoken::{Algorithm, Header};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const OWN_ROLE: &str = "code-owner";

/// A world with a role for the service itself and every login method.
async fn world(cluster: Option<&Cluster>) -> World {
    World::start(|setup| {
        let service = &mut setup.services[0];
        let own = DatabaseRole {
            name: OWN_ROLE.to_owned().into(),
            own: true,
            ..service.database_roles[0].clone()
        };
        service.database_roles.push(own);
        service.approle = Some(Approle { secret_id_ttl_seconds: 600 });
        if let Some(Cluster { url, authority, .. }) = cluster {
            setup.kubernetes =
                Some(Kubernetes { host: url.clone(), ca_certificate: Some(authority.pem.clone()) });
            service.kubernetes = Some(ServiceAccount {
                namespace: "drawbridge".to_owned(),
                service_account: "code".to_owned(),
                audience: None,
            });
        }
    })
    .await
}

fn credentials_with(world: &World, login: VaultLogin) -> Credentials {
    let vault = drawbridge_credentials::Vault::new("code", world.config()).expect("a client");
    let vault = vault.with_login(login).expect("a login");
    Credentials::new(CredentialSource::Vault(vault.into()), CredentialLimits::default())
}

/// Writes a secret into a file.
fn file(folder: &TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, format!("{text}\n")).expect("a file");
    path
}

/// The role id and a secret id, as the deployment of the service obtains them.
async fn approle(world: &World, folder: &TempDir) -> VaultLogin {
    let role_id =
        world.vault.request(Method::GET, "auth/approle/role/code/role-id", json!({})).await.1;
    let secret_id =
        world.vault.request(Method::POST, "auth/approle/role/code/secret-id", json!({})).await.1;
    let text =
        |value: &Value| value.as_str().unwrap_or_else(|| panic!("no id: {role_id}")).to_owned();
    VaultLogin {
        vault_login: Some(LoginMethod::Approle),
        vault_login_file: Some(file(folder, "secret-id", &text(&secret_id["data"]["secret_id"]))),
        vault_role_id_file: Some(file(folder, "role-id", &text(&role_id["data"]["role_id"]))),
    }
}

#[tokio::test]
async fn a_service_has_its_own_database_user_that_no_caller_gets() {
    let (world, folder) = (world(None).await, tempfile::tempdir().expect("a folder"));
    let credentials = credentials_with(&world, approle(&world, &folder).await);
    let own = credentials.service_database(OWN_ROLE).await.expect("a lease");
    let again = credentials.service_database(OWN_ROLE).await.expect("a lease");
    assert_eq!(own.username, again.username);
    let user =
        world.postgres.query_as(&own.username, own.password.expose_secret(), "select current_user");
    assert_eq!(user, Ok(vec![own.username.clone()]));
    assert_eq!(world.vault.responses("auth/approle/login").len(), 1);

    // The service and its callers cannot use each other's roles.
    let alice = world.caller("alice").await;
    let refused = credentials.database(&alice, &context(), OWN_ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Refused { status: 403, .. }), "{refused:?}");
    let refused = credentials.service_database(ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Refused { status: 403, .. }), "{refused:?}");
    let of_alice = credentials.database(&alice, &context(), ROLE).await.expect("a lease");

    credentials.revoke_service_credentials().await;
    let remains = || world.postgres.leased_users() == [of_alice.username.clone()];
    eventually("the service's own user is removed, and alice's is not", SETTLE_TIMEOUT, remains)
        .await;
    assert!(!own.is_usable());
    let another = credentials.service_database(OWN_ROLE).await.expect("a lease of another session");
    assert_ne!(another.username, own.username);
    credentials.close().await;
    let none = || world.postgres.leased_users().is_empty();
    eventually("every user is gone", SETTLE_TIMEOUT, none).await;
}

#[tokio::test]
async fn without_its_own_login_a_service_gets_no_credentials_for_itself() {
    let world = world(None).await;
    let credentials = world.credentials();
    let refused = credentials.service_database(OWN_ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::NoServiceLogin), "{refused:?}");
    assert!(refused.to_string().contains("--vault-login") && !refused.is_retryable(), "{refused}");
    assert_eq!(world.postgres.leased_users(), [""; 0]);
    credentials.close().await;
}

#[tokio::test]
async fn an_agents_token_is_reread_at_each_login_and_is_not_revoked() {
    let (world, folder) = (world(None).await, tempfile::tempdir().expect("a folder"));
    let sink = folder.path().join("sink");
    let login = VaultLogin {
        vault_login: Some(LoginMethod::TokenFile),
        vault_login_file: Some(sink.clone()),
        ..VaultLogin::default()
    };
    let credentials = credentials_with(&world, login);
    let early =
        credentials.service_database(OWN_ROLE).await.expect_err("the agent has not written it yet");
    assert!(matches!(early, CredentialsError::Unavailable(Outage::LoginFile)), "{early:?}");

    let mut tokens = Vec::new();
    for _ in 0..2 {
        let token = agents_token(&world, &folder).await;
        fs::write(&sink, &token).expect("a file");
        tokens.push(token);
        credentials.service_database(OWN_ROLE).await.expect("a lease");
        credentials.revoke_service_credentials().await;
    }
    credentials.close().await;
    let none = || world.postgres.leased_users().is_empty();
    eventually("every user is gone", SETTLE_TIMEOUT, none).await;
    for token in tokens {
        let lookup =
            world.vault.request_as(&token, Method::GET, "auth/token/lookup-self", json!({})).await;
        assert!(lookup.0.is_success(), "{lookup:?}");
    }
}

/// The token that an agent logged in as the service writes into its file.
async fn agents_token(world: &World, folder: &TempDir) -> String {
    let login = approle(world, folder).await;
    let read = |path: Option<std::path::PathBuf>| {
        fs::read_to_string(path.expect("a path")).expect("a file").trim().to_owned()
    };
    let ids = json!({ "role_id": read(login.vault_role_id_file), "secret_id": read(login.vault_login_file) });
    let (_, answer) = world.vault.request_as("", Method::POST, "auth/approle/login", ids).await;
    answer["auth"]["client_token"]
        .as_str()
        .unwrap_or_else(|| panic!("no login: {answer}"))
        .to_owned()
}

#[tokio::test]
async fn a_pod_logs_in_with_its_service_account_which_vault_verifies_with_kubernetes() {
    let issuer = TestIssuer::start().await;
    let cluster = Cluster::start().await;
    let (world, folder) = (world(Some(&cluster)).await, tempfile::tempdir().expect("a folder"));
    let login = |token: &str| VaultLogin {
        vault_login: Some(LoginMethod::Kubernetes),
        vault_login_file: Some(file(&folder, "token", token)),
        ..VaultLogin::default()
    };

    let (own, other) = (pod_token(&issuer, "code"), pod_token(&issuer, "tickets"));
    cluster.register(&own, "code");
    cluster.register(&other, "tickets");
    let credentials = credentials_with(&world, login(&own));
    let lease = credentials.service_database(OWN_ROLE).await.expect("a lease");
    assert_eq!(world.postgres.leased_users(), std::slice::from_ref(&lease.username));
    let logins = world.vault.responses("auth/kubernetes/login");
    let metadata = &logins[0]["response"]["auth"]["metadata"];
    assert_eq!(metadata["service_account_name"], "code", "{logins:?}");
    credentials.close().await;

    // The service account of another service, and a token unknown to Kubernetes.
    for token in [other, pod_token(&issuer, "code")] {
        let credentials = credentials_with(&world, login(&token));
        let refused = credentials.service_database(OWN_ROLE).await.expect_err("no lease");
        assert!(matches!(refused, CredentialsError::Refused { .. }), "{refused:?}");
        credentials.close().await;
    }
}

/// A token as Kubernetes projects it into pods.
fn pod_token(issuer: &TestIssuer, account: &str) -> String {
    let header = Header { kid: Some("test-key".to_owned()), ..Header::new(Algorithm::ES256) };
    let now = drawbridge_tests::now();
    let claims = json!({
        "iss": issuer.url, "aud": ["https://kubernetes.default.svc"], "iat": now, "nbf": now, "exp": now + 600,
        "sub": format!("system:serviceaccount:drawbridge:{account}"),
        "jti": uuid::Uuid::new_v4(),
        "kubernetes.io": {
            "namespace": "drawbridge",
            "serviceaccount": { "name": account, "uid": format!("uid-of-{account}") },
        },
    });
    issuer.sign(&header, &claims)
}

/// Tokens and their service accounts.
type Accounts = Arc<Mutex<Vec<(String, String)>>>;

/// Kubernetes' TokenReview API, as Vault uses it.
struct Cluster {
    url: url::Url,
    authority: TestAuthority,
    accounts: Accounts,
}

impl Cluster {
    async fn start() -> Self {
        let accounts = Accounts::default();
        let reviews = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
            .with_state(Arc::clone(&accounts));
        let authority = TestAuthority::new();
        let listener = TlsListener::bind(&authority.sign(&["127.0.0.1"])).await;
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, reviews).await });
        Self { url: url.parse().expect("a URL"), authority, accounts }
    }

    fn register(&self, token: &str, account: &str) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.push((token.to_owned(), account.to_owned()));
    }
}

async fn review(State(accounts): State<Accounts>, Json(mut review): Json<Value>) -> Json<Value> {
    let accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
    let account = accounts
        .iter()
        .find(|(token, _)| review["spec"]["token"] == **token)
        .map(|(_, account)| account);
    // Every token here is valid for the requested audience.
    let audiences = review["spec"]["audiences"].clone();
    review["status"] = match account {
        Some(account) => json!({
            "authenticated": true,
            "audiences": audiences,
            "user": {
                "username": format!("system:serviceaccount:drawbridge:{account}"),
                "uid": format!("uid-of-{account}"),
                "groups": ["system:serviceaccounts", "system:serviceaccounts:drawbridge"],
            },
        }),
        None => json!({ "authenticated": false, "error": "unknown token" }),
    };
    Json(review)
}
