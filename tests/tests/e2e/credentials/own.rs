use std::fs;

use axum::{Json, Router, extract::State, routing::post, serve::Listener as _};
use drawbridge_sdk::credentials::{
    CredentialsError, LoginMethod, Outage, VaultLogin,
    bootstrap::{Approle, Kubernetes, ServiceAccount},
};
use drawbridge_tests::{TestAuthority, TestIssuer, TlsListener};
use jsonwebtoken::{Algorithm, Header};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const OWN_ROLE: &str = "code-owner";

/// With a role that is the service's own, and every way to log in.
async fn world(cluster: Option<&Cluster>) -> World {
    World::start(|setup| {
        let service = &mut setup.services[0];
        let own = DatabaseRole {
            name: OWN_ROLE.to_owned(),
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
    let vault = drawbridge_sdk::credentials::Vault::new("code", world.config()).expect("a client");
    let vault = vault.with_login(login).expect("a login");
    Credentials::new(Source::Vault(vault.into()), Limits::default())
}

/// A file with something secret.
fn file(folder: &TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, format!("{text}\n")).expect("a file");
    path
}

/// The role id and a secret id, as whoever deploys the service gets them.
async fn approle(world: &World, folder: &TempDir) -> VaultLogin {
    let role_id = world.vault.ask(Method::GET, "auth/approle/role/code/role-id", json!({})).await.1;
    let secret_id =
        world.vault.ask(Method::POST, "auth/approle/role/code/secret-id", json!({})).await.1;
    let text =
        |value: &Value| value.as_str().unwrap_or_else(|| panic!("no id: {role_id}")).to_owned();
    VaultLogin {
        vault_login: Some(LoginMethod::Approle),
        vault_login_file: Some(file(folder, "secret-id", &text(&secret_id["data"]["secret_id"]))),
        vault_role_id_file: Some(file(folder, "role-id", &text(&role_id["data"]["role_id"]))),
    }
}

#[tokio::test]
async fn a_service_has_users_of_its_own_that_no_caller_gets() {
    let (world, folder) = (world(None).await, tempfile::tempdir().expect("a folder"));
    let credentials = credentials_with(&world, approle(&world, &folder).await);
    let own = credentials.own_database(OWN_ROLE).await.expect("a lease");
    let again = credentials.own_database(OWN_ROLE).await.expect("a lease");
    assert_eq!(own.username, again.username);
    let user =
        world.postgres.ask_as(&own.username, own.password.expose_secret(), "select current_user");
    assert_eq!(user, Ok(vec![own.username.clone()]));
    assert_eq!(world.vault.answered("auth/approle/login").len(), 1);

    // Neither reaches what is the other's.
    let alice = world.caller("alice").await;
    let refused = credentials.database(&alice, &context(), OWN_ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Refused { status: 403, .. }), "{refused:?}");
    let refused = credentials.own_database(ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Refused { status: 403, .. }), "{refused:?}");
    let hers = credentials.database(&alice, &context(), ROLE).await.expect("a lease");

    credentials.revoke_own().await;
    let left = || world.postgres.leased_users() == [hers.username.clone()];
    eventually("the service's own user is gone, and alice's is not", SOON, left).await;
    assert!(!own.is_usable());
    let another = credentials.own_database(OWN_ROLE).await.expect("a lease of another session");
    assert_ne!(another.username, own.username);
    credentials.close().await;
    let none = || world.postgres.leased_users().is_empty();
    eventually("every user is gone", SOON, none).await;
}

#[tokio::test]
async fn without_a_login_of_its_own_a_service_has_nothing_in_its_own_name() {
    let world = world(None).await;
    let credentials = world.credentials();
    let refused = credentials.own_database(OWN_ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::NoOwnLogin), "{refused:?}");
    assert!(refused.to_string().contains("--vault-login") && !refused.is_retryable(), "{refused}");
    assert_eq!(world.postgres.leased_users(), [""; 0]);
    credentials.close().await;
}

#[tokio::test]
async fn an_agents_token_is_read_anew_and_outlives_what_is_taken_with_it() {
    let (world, folder) = (world(None).await, tempfile::tempdir().expect("a folder"));
    let sink = folder.path().join("sink");
    let login = VaultLogin {
        vault_login: Some(LoginMethod::TokenFile),
        vault_login_file: Some(sink.clone()),
        ..VaultLogin::default()
    };
    let credentials = credentials_with(&world, login);
    let early =
        credentials.own_database(OWN_ROLE).await.expect_err("the agent has not written it yet");
    assert!(matches!(early, CredentialsError::Unavailable(Outage::LoginFile)), "{early:?}");

    let mut tokens = Vec::new();
    for _ in 0..2 {
        let token = agents_token(&world, &folder).await;
        fs::write(&sink, &token).expect("a file");
        tokens.push(token);
        credentials.own_database(OWN_ROLE).await.expect("a lease");
        credentials.revoke_own().await;
    }
    credentials.close().await;
    let none = || world.postgres.leased_users().is_empty();
    eventually("every user is gone", SOON, none).await;
    for token in tokens {
        let known =
            world.vault.ask_as(&token, Method::GET, "auth/token/lookup-self", json!({})).await;
        assert!(known.0.is_success(), "{known:?}");
    }
}

/// What an agent that logs in as the service keeps in its file.
async fn agents_token(world: &World, folder: &TempDir) -> String {
    let login = approle(world, folder).await;
    let read = |path: Option<std::path::PathBuf>| {
        fs::read_to_string(path.expect("a path")).expect("a file").trim().to_owned()
    };
    let ids = json!({ "role_id": read(login.vault_role_id_file), "secret_id": read(login.vault_login_file) });
    let (_, answer) = world.vault.ask_as("", Method::POST, "auth/approle/login", ids).await;
    answer["auth"]["client_token"]
        .as_str()
        .unwrap_or_else(|| panic!("no login: {answer}"))
        .to_owned()
}

#[tokio::test]
async fn a_pod_logs_in_by_its_service_account_which_vault_asks_kubernetes_about() {
    let issuer = TestIssuer::start().await;
    let cluster = Cluster::start().await;
    let (world, folder) = (world(Some(&cluster)).await, tempfile::tempdir().expect("a folder"));
    let login = |token: &str| VaultLogin {
        vault_login: Some(LoginMethod::Kubernetes),
        vault_login_file: Some(file(&folder, "token", token)),
        ..VaultLogin::default()
    };

    let (own, other) = (pod_token(&issuer, "code"), pod_token(&issuer, "tickets"));
    cluster.knows(&own, "code");
    cluster.knows(&other, "tickets");
    let credentials = credentials_with(&world, login(&own));
    let lease = credentials.own_database(OWN_ROLE).await.expect("a lease");
    assert_eq!(world.postgres.leased_users(), std::slice::from_ref(&lease.username));
    let logins = world.vault.answered("auth/kubernetes/login");
    let metadata = &logins[0]["response"]["auth"]["metadata"];
    assert_eq!(metadata["service_account_name"], "code", "{logins:?}");
    credentials.close().await;

    // The service account of another service, and a token that Kubernetes does not know.
    for token in [other, pod_token(&issuer, "code")] {
        let credentials = credentials_with(&world, login(&token));
        let refused = credentials.own_database(OWN_ROLE).await.expect_err("no lease");
        assert!(matches!(refused, CredentialsError::Refused { .. }), "{refused:?}");
        credentials.close().await;
    }
}

/// A token of the kind that Kubernetes projects into pods.
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

/// Tokens, and the service account of each.
type Known = Arc<Mutex<Vec<(String, String)>>>;

/// Of Kubernetes' API, what Vault asks: whose is this token?
struct Cluster {
    url: url::Url,
    authority: TestAuthority,
    known: Known,
}

impl Cluster {
    async fn start() -> Self {
        let known = Known::default();
        let reviews = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
            .with_state(Arc::clone(&known));
        let authority = TestAuthority::new();
        let listener = TlsListener::bind(&authority.sign(&["127.0.0.1"])).await;
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, reviews).await });
        Self { url: url.parse().expect("a URL"), authority, known }
    }

    fn knows(&self, token: &str, account: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push((token.to_owned(), account.to_owned()));
    }
}

async fn review(State(known): State<Known>, Json(mut review): Json<Value>) -> Json<Value> {
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let account = known
        .iter()
        .find(|(token, _)| review["spec"]["token"] == **token)
        .map(|(_, account)| account);
    // Every token here is for the audience that is asked about.
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
        None => json!({ "authenticated": false, "error": "the token is not known" }),
    };
    Json(review)
}
