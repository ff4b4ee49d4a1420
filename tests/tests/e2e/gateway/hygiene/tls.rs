//! TLS at the ingress.

use std::{fs, path::Path, sync::Arc, time::Instant};

use drawbridge_tests::{Edge, SignedCertificate, TestAuthority, TestMesh};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        version::{TLS12, TLS13},
    },
};

use super::{STEP_TIMEOUT, connect};

fn write(folder: &Path, signed: &SignedCertificate) {
    fs::write(folder.join("tls.key"), &signed.key).expect("a file");
    fs::write(folder.join("tls.crt"), &signed.certificate).expect("a file");
}

async fn start(mesh: &TestMesh, folder: &Path) -> Edge {
    mesh.edge(&[], |config| {
        config.tls_certificate_file = Some(folder.join("tls.crt"));
        config.tls_key_file = Some(folder.join("tls.key"));
    })
    .await
}

fn parse(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// Connects with this TLS version. Returns the connection and the edge's certificate.
async fn handshake(
    edge: &Edge,
    authority: &TestAuthority,
    version: &'static SupportedProtocolVersion,
) -> (TlsStream<TcpStream>, CertificateDer<'static>) {
    let mut roots = RootCertStore::empty();
    roots.add(parse(&authority.pem)).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, connect(edge).await);
    let stream = timeout(STEP_TIMEOUT, connecting).await.expect("in time").expect("a handshake");
    let presented =
        stream.get_ref().1.peer_certificates().expect("certificates")[0].clone().into_owned();
    (stream, presented)
}

/// Requests the metadata over an open connection.
async fn get_metadata(edge: &Edge, stream: &mut TlsStream<TcpStream>) -> String {
    let host = &edge.hosted.running.address;
    let request =
        format!("GET /.well-known/oauth-protected-resource HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("an open connection");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = timeout(STEP_TIMEOUT, stream.read_buf(&mut answer)).await.expect("in time");
        assert_ne!(read.expect("an answer"), 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).expect("a text")
}

/// Polls the admin port until its response contains this text.
async fn wait_for_admin(edge: &Edge, path: &str, expected: &str) {
    let url = format!("http://{}{path}", edge.hosted.running.admin);
    let started = Instant::now();
    loop {
        let text = reqwest::get(&url).await.expect("an answer").text().await.expect("a text");
        if text.contains(expected) {
            return;
        }
        assert!(started.elapsed() < STEP_TIMEOUT, "{expected} is not in {text}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn the_ingress_accepts_tls_1_2_and_1_3_and_rejects_plaintext() {
    let (authority, folder) = (TestAuthority::new(), tempfile::tempdir().expect("a folder"));
    write(folder.path(), &authority.sign(&["127.0.0.1"]));
    let mesh = TestMesh::start().await;
    let edge = start(&mesh, folder.path()).await;
    for (version, expected) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let (mut stream, _) = handshake(&edge, &authority, version).await;
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        assert!(get_metadata(&edge, &mut stream).await.starts_with("HTTP/1.1 200 "));
    }
    let trusted = reqwest::Certificate::from_pem(authority.pem.as_bytes()).expect("a certificate");
    let http = reqwest::Client::builder().tls_certs_only([trusted]).build().expect("a client");
    let url = edge.url.as_str().replace("http:", "https:");
    let answer = http.get(&url).send().await.expect("an answer");
    assert_eq!(answer.status(), http::StatusCode::UNAUTHORIZED);
    assert!(reqwest::get(edge.url.clone()).await.is_err());
    wait_for_admin(
        &edge,
        "/metrics",
        "\ncertificate_expiry_timestamp_seconds{certificate=\"server\"} ",
    )
    .await;
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_open_ones_continue() {
    let (authority, folder) = (TestAuthority::new(), tempfile::tempdir().expect("a folder"));
    let (first, second) = (authority.sign(&["127.0.0.1"]), authority.sign(&["127.0.0.1"]));
    write(folder.path(), &first);
    let mesh = TestMesh::start().await;
    let edge = start(&mesh, folder.path()).await;
    let (mut open, presented) = handshake(&edge, &authority, &TLS13).await;
    assert_eq!(presented, parse(&first.certificate));
    get_metadata(&edge, &mut open).await;

    // With a certificate without its key, or without a certificate, the previous one stays in use.
    for (broken, failed) in [(second.certificate.as_str(), 1), ("-----BEGIN", 2)] {
        fs::write(folder.path().join("tls.crt"), broken).expect("a file");
        wait_for_admin(
            &edge,
            "/metrics",
            &format!("\ntls_certificate_reloads_failed_total {failed}"),
        )
        .await;
        wait_for_admin(&edge, "/metrics", "\ntls_certificate_current 0").await;
        wait_for_admin(&edge, "/readyz", "\"certificate\":").await;
        assert_eq!(handshake(&edge, &authority, &TLS13).await.1, parse(&first.certificate));
    }
    assert!(mesh.log().contains("changed files cannot be used; the previous ones stay in effect"));

    write(folder.path(), &second);
    wait_for_admin(&edge, "/metrics", "\ntls_certificate_current 1").await;
    let (mut new, presented) = handshake(&edge, &authority, &TLS13).await;
    assert_eq!(presented, parse(&second.certificate));
    get_metadata(&edge, &mut new).await;
    assert!(get_metadata(&edge, &mut open).await.starts_with("HTTP/1.1 200 "));
}
