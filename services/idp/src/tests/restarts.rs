//! Restarts with a state file.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use drawbridge_runtime::{Telemetry, TelemetryConfig};
use serde_json::{Value, json};

use super::harness::{REDIRECT_URI, RESOURCE, Server, check_rejected, config, tokens};
use crate::{Config, start};

fn with_file(path: &Path) -> Config {
    Config { state_file: Some(path.to_owned()), ..config() }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

async fn keys_of(server: &Server) -> Value {
    server.get("/.well-known/jwks.json").await.json().await.unwrap()
}

#[tokio::test]
async fn a_restart_preserves_registrations_the_signing_key_and_refresh_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("idp.json");
    let before = Server::start_with(with_file(&path)).await;
    let (client, unused) = (before.public_client().await, before.public_client().await);
    let code = before.code(&client, &[]).await;
    let first = tokens(before.redeem(&client, &code, &[]).await).await;
    let second = tokens(before.refresh(&client, text(&first, "refresh_token")).await).await;
    let keys = keys_of(&before).await;
    before.stop().await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let saved = fs::read_to_string(&path).unwrap();
    let secret = text(&second, "refresh_token").split_once('.').unwrap().1;
    assert!(!saved.contains(secret), "a refresh token is in the file");

    let after = Server::start_with(with_file(&path)).await;
    assert_eq!(keys_of(&after).await, keys);
    let third = tokens(after.refresh(&client, text(&second, "refresh_token")).await).await;
    after.verify(text(&third, "access_token"), RESOURCE).await;
    // A client without a sign-in is restored too.
    let code = after.code(&unused, &[]).await;
    tokens(after.redeem(&unused, &code, &[]).await).await;
    // Reuse of a token from before the restart is detected.
    let stolen = after.refresh(&client, text(&second, "refresh_token")).await;
    check_rejected(stolen, 400, "invalid_grant").await;
    after.stop().await;
    let last = Server::start_with(with_file(&path)).await;
    let revoked = last.refresh(&client, text(&third, "refresh_token")).await;
    check_rejected(revoked, 400, "invalid_grant").await;
}

#[tokio::test]
async fn without_a_state_file_a_restart_loses_all_state() {
    let before = Server::start().await;
    let client = before.public_client().await;
    let keys = keys_of(&before).await;
    before.stop().await;
    let after = Server::start().await;
    assert_ne!(keys_of(&after).await, keys);
    let refused = after.refresh(&client, "x.y").await;
    check_rejected(refused, 401, "invalid_client").await;
}

#[tokio::test]
async fn a_confidential_client_authenticates_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("idp.json");
    let before = Server::start_with(with_file(&path)).await;
    let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "client_secret_post" });
    let registered = before.register(&metadata).await;
    before.stop().await;
    let after = Server::start_with(with_file(&path)).await;
    let client = text(&registered, "client_id");
    let code = after.code(client, &[]).await;
    check_rejected(after.redeem(client, &code, &[]).await, 401, "invalid_client").await;
    let secret = [("client_secret", text(&registered, "client_secret"))];
    tokens(after.redeem(client, &code, &secret).await).await;
}

#[tokio::test]
async fn a_grant_for_a_removed_resource_ends_with_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("idp.json");
    let before = Server::start_with(with_file(&path)).await;
    let client = before.public_client().await;
    let code = before.code(&client, &[]).await;
    let first = tokens(before.redeem(&client, &code, &[]).await).await;
    before.stop().await;
    let elsewhere = vec!["http://127.0.0.1:8180/mcp".to_owned()];
    let after = Server::start_with(Config { resources: elsewhere, ..with_file(&path) }).await;
    let refused = after.refresh(&client, text(&first, "refresh_token")).await;
    check_rejected(refused, 400, "invalid_grant").await;
}

#[tokio::test]
async fn an_invalid_state_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("idp.json");
    let telemetry = Telemetry::new("idp", &TelemetryConfig::default()).unwrap();
    let refused =
        async |path: &Path| start(with_file(path), &telemetry).await.unwrap_err().to_string();
    fs::write(&path, "{}").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let broken = refused(&path).await;
    assert!(broken.contains("idp.json is not a state file of this version: remove it"), "{broken}");
    let no_key = json!({ "version": 1, "key": "AAAA", "clients": [], "unused": [], "grants": [] });
    fs::write(&path, no_key.to_string()).unwrap();
    let broken = refused(&path).await;
    assert!(
        broken.contains("the signing key in ") && broken.contains("remove the file"),
        "{broken}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(refused(&path).await.starts_with("cannot read the state file "));
    let nowhere = refused(&folder.path().join("no/such/idp.json")).await;
    assert!(nowhere.starts_with("cannot write the state file "), "{nowhere}");
}
