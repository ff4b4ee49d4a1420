use std::fs;

use axum::serve::Listener as _;
use drawbridge_sdk::credentials::CredentialsError;
use drawbridge_tests::{TestAuthority, TlsListener};
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpStream;

use super::*;

const NAMESPACE: &str = "team";

#[tokio::test]
async fn vault_is_asked_by_tls_with_a_certificate_in_a_namespace_and_nobody_else_is_trusted() {
    let mut world = World::bare().await;
    // Audit is set up in the root namespace.
    world.setup.audit_file = None;
    let (status, answer) =
        world.vault.ask(Method::POST, &format!("sys/namespaces/{NAMESPACE}"), json!({})).await;
    assert!(status.is_success(), "{answer}");

    let (servers, clients, folder) =
        (TestAuthority::new(), TestAuthority::new(), tempfile::tempdir().expect("a folder"));
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let certified = |authority: &TestAuthority, name: &str| {
        let signed = authority.sign(&["code"]);
        file(name, &format!("{}{}", signed.certificate, signed.key))
    };
    let config = VaultConfig {
        vault_namespace: Some(NAMESPACE.to_owned()),
        vault_ca_file: Some(file("ca.pem", &servers.pem)),
        vault_client_certificate_file: Some(certified(&clients, "client.pem")),
        ..VaultConfig::new(tls_before(&world.vault, &servers, &clients).await)
    };
    let token = SecretString::from(world.vault.root_token.clone());
    let bootstrap = Bootstrap::new(&config, &token).expect("a client");
    bootstrap.apply(&world.setup).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));

    let take = async |config: VaultConfig| {
        let vault = drawbridge_sdk::credentials::Vault::new("code", config).expect("a client");
        let credentials = Credentials::new(Source::Vault(vault.into()), Limits::default());
        let lease = credentials.database(&world.caller("alice").await, &context(), ROLE).await;
        credentials.close().await;
        lease
    };
    take(config.clone()).await.expect("a lease");

    let strange = file("strange.pem", &TestAuthority::new().pem);
    for (what, changed) in [
        ("another authority", VaultConfig { vault_ca_file: Some(strange), ..config.clone() }),
        ("those of this system", VaultConfig { vault_ca_file: None, ..config.clone() }),
        ("no certificate", VaultConfig { vault_client_certificate_file: None, ..config.clone() }),
        (
            "a stranger's certificate",
            VaultConfig {
                vault_client_certificate_file: Some(certified(&servers, "strange-client.pem")),
                ..config.clone()
            },
        ),
    ] {
        let error = take(changed).await.expect_err("no lease");
        assert!(matches!(error, CredentialsError::Unavailable(_)), "{what}: {error:?}");
    }
    let elsewhere =
        take(VaultConfig { vault_namespace: None, ..config }).await.expect_err("no lease");
    assert!(!elsewhere.is_retryable(), "{elsewhere:?}");
}

/// What speaks TLS in front of a Vault, to clients that have a certificate.
async fn tls_before(vault: &Vault, servers: &TestAuthority, clients: &TestAuthority) -> url::Url {
    let mut listener = TlsListener::bind_for(&servers.sign(&["127.0.0.1"]), clients).await;
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let behind = vault.url.socket_addrs(|| None).expect("an address");
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await;
            let mut vault = TcpStream::connect(&*behind).await.expect("a connection");
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut client, &mut vault).await },
            );
        }
    });
    url.parse().expect("a URL")
}
