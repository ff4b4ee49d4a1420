use axum::{Router, routing::get, serve::Listener as _};
use drawbridge_config::setup::{Authority, CertificateRole};
use drawbridge_credentials::{CredentialsError, IssuedCertificate};
use drawbridge_tests::{SignedCertificate, TlsListener};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

const CERTIFICATES: &str = "code-files";

async fn world(ttl_seconds: u64) -> World {
    World::start(|setup| {
        setup.pki = Some(Authority { common_name: "Drawbridge".to_owned(), ttl_seconds: 86_400 });
        setup.services[0].certificate_roles = vec![CertificateRole {
            name: CERTIFICATES.to_owned().into(),
            allowed_domains: vec!["{{tenant}}.code.internal".to_owned()],
            allow_subdomains: true,
            ttl_seconds: ttl_seconds.into(),
        }];
    })
    .await
}

/// Serves with this certificate, and connects under a name as a client that trusts its authority.
async fn greet(certificate: &IssuedCertificate, name: &str) -> Result<String, reqwest::Error> {
    let signed = SignedCertificate {
        certificate: certificate.chain.clone(),
        key: certificate.private_key.expose_secret().to_owned(),
    };
    let listener = TlsListener::bind(&signed).await;
    let address = listener.local_addr().expect("an address");
    let server = Router::new().route("/", get(async || "hello"));
    let serving = tokio::spawn(async move { axum::serve(listener, server).await });
    let authority =
        reqwest::Certificate::from_pem(certificate.authority.as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([authority]).resolve(name, address);
    let client = client.build().expect("a client");
    let response = client.get(format!("https://{name}:{}/", address.port())).send().await;
    serving.abort();
    response?.text().await
}

#[tokio::test]
async fn a_caller_gets_certificates_for_its_own_tenant_until_its_session_ends() {
    let world = world(600).await;
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let issue = |name: &'static str| {
        let (credentials, alice) = (credentials.clone(), alice.clone());
        async move { credentials.certificate(&alice, &context(), CERTIFICATES, name).await }
    };
    let certificate = issue("files.acme.code.internal").await.expect("a certificate");
    assert_eq!(greet(&certificate, "files.acme.code.internal").await.expect("a response"), "hello");
    greet(&certificate, "other.acme.code.internal").await.expect_err("it is for another name");
    let debug = format!("{certificate:?}");
    assert!(!debug.contains("PRIVATE KEY") && certificate.is_usable(), "{debug}");

    let again = issue("files.acme.code.internal").await.expect("a certificate");
    assert!(Arc::ptr_eq(&certificate, &again), "it was issued twice");
    let issued = world.vault.responses(&format!("pki/issue/{CERTIFICATES}"));
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0]["auth"]["metadata"]["subject"], "alice", "{issued:?}");

    for name in ["files.globex.code.internal", "*.acme.code.internal", "127.0.0.1"] {
        let refused = issue(name).await.expect_err("it is not hers");
        assert!(
            matches!(refused, CredentialsError::Refused { status: 400, .. }),
            "{name}: {refused:?}"
        );
    }

    let serial = issued[0]["response"]["data"]["serial_number"].clone();
    assert!(serial.is_string(), "{issued:?}");
    credentials.revoke(alice.principal()).await;
    certificate.ended().await;
    assert!(!certificate.is_usable());
    let began = Instant::now();
    while world
        .vault
        .request(Method::from_bytes(b"LIST").expect("a method"), "pki/certs/revoked", json!({}))
        .await
        .1["data"]["keys"]
        .is_null()
    {
        assert!(began.elapsed() < SETTLE_TIMEOUT, "the certificate is not revoked");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    credentials.close().await;
}

#[tokio::test]
async fn a_certificate_is_replaced_after_two_thirds_of_its_lifetime() {
    let world = world(6).await;
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let first =
        credentials.certificate(&alice, &context(), CERTIFICATES, "acme.code.internal").await;
    let first = first.expect("a certificate");
    let began = Instant::now();
    loop {
        let certificate =
            credentials.certificate(&alice, &context(), CERTIFICATES, "acme.code.internal").await;
        if !Arc::ptr_eq(&certificate.expect("a certificate"), &first) {
            break;
        }
        assert!(began.elapsed() < SETTLE_TIMEOUT, "it is still the first");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    credentials.close().await;
}
