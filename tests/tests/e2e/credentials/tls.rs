use std::fs;

use axum::serve::Listener as _;
use drawbridge_credentials::CredentialsError;
use drawbridge_tests::{TestAuthority, TlsListener};
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpStream;

use super::*;

const NAMESPACE: &str = "team";

#[tokio::test]
async fn vault_is_reached_over_mtls_in_a_namespace_and_untrusted_peers_are_rejected() {
    let mut world = World::bare().await;
    // Audit devices belong to the root namespace.
    world.setup.audit_file = None;
    let (status, answer) =
        world.vault.request(Method::POST, &format!("sys/namespaces/{NAMESPACE}"), json!({})).await;
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
        ..VaultConfig::new(tls_proxy(&world.vault, &servers, &clients).await)
    };
    let done = world.bootstrap_of(&config).apply(&world.setup).await;
    done.unwrap_or_else(|error| panic!("{error}: {error:?}"));

    let lease = async |config: VaultConfig| {
        let vault = drawbridge_credentials::Vault::new("code", config).expect("a client");
        let credentials =
            Credentials::new(CredentialSource::Vault(vault.into()), CredentialLimits::default());
        let lease = credentials.database(&world.caller("alice").await, &context(), ROLE).await;
        credentials.close().await;
        lease
    };
    lease(config.clone()).await.expect("a lease");

    let untrusted = file("untrusted.pem", &TestAuthority::new().pem);
    for (what, changed) in [
        ("another authority", VaultConfig { vault_ca_file: Some(untrusted), ..config.clone() }),
        ("the system's authorities", VaultConfig { vault_ca_file: None, ..config.clone() }),
        ("no certificate", VaultConfig { vault_client_certificate_file: None, ..config.clone() }),
        (
            "a certificate of an untrusted authority",
            VaultConfig {
                vault_client_certificate_file: Some(certified(&servers, "untrusted-client.pem")),
                ..config.clone()
            },
        ),
    ] {
        let error = lease(changed).await.expect_err("no lease");
        assert!(matches!(error, CredentialsError::Unavailable(_)), "{what}: {error:?}");
    }
    let no_namespace =
        lease(VaultConfig { vault_namespace: None, ..config }).await.expect_err("no lease");
    assert!(!no_namespace.is_retryable(), "{no_namespace:?}");
}

/// Starts a TLS proxy in front of a Vault for clients with a certificate. Returns its URL.
async fn tls_proxy(vault: &Vault, servers: &TestAuthority, clients: &TestAuthority) -> url::Url {
    let mut listener = TlsListener::bind_for(&servers.sign(&["127.0.0.1"]), clients).await;
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let upstream = vault.url.socket_addrs(|| None).expect("an address");
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await;
            let mut vault = TcpStream::connect(&*upstream).await.expect("a connection");
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut client, &mut vault).await },
            );
        }
    });
    url.parse().expect("a URL")
}
