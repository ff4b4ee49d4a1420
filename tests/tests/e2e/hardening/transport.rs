//! Connections between services.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use drawbridge_cli::mesh::Hosted;
use drawbridge_sdk::{HandshakeLimits, Listen, MtlsServerConfig, Peers, TelemetryConfig};
use drawbridge_tests::{TestAuthority, TestMesh, conformance::Conformance};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use url::Url;

use crate::identity::context;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test waits: nobody is let in because somebody else's time is over.
const NEVER_MS: u64 = 3_600_000;

/// A tool service that speaks mTLS, and where it does.
async fn start(mesh: &TestMesh, handshakes: HandshakeLimits) -> (Hosted, Url) {
    let mut service = Conformance::default();
    service.mtls = MtlsServerConfig { handshakes, ..mesh.mtls_server("test") };
    let (listen, address) =
        Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let keys = mesh.transaction_keys();
    let telemetry = TelemetryConfig::default();
    let hosted = Hosted::start("conformance", &telemetry, |telemetry| async move {
        service.start(listen, keys, &telemetry).await
    });
    (hosted.await.expect("the service"), mesh.grpc_url(address))
}

/// Whether a peer with a good certificate, which has no connection yet, is answered.
async fn is_served(mesh: &TestMesh, url: &Url) -> bool {
    let peers = Peers::open(&mesh.mtls("edge")).expect("a certificate");
    let channel = peers.connect(url, "test", None).expect("a channel");
    let context = context();
    let reading = drawbridge_sdk::reflection::contract(channel, &context);
    timeout(PATIENCE, reading).await.is_ok_and(|contract| contract.is_ok())
}

/// A connection from this address of loopback.
async fn connect_from(host: u8, to: &Url) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).expect("an address of loopback");
    let to = to.socket_addrs(|| None).expect("an address")[0];
    socket.connect(to).await.expect("a connection")
}

/// The attack: 1,024 connections that say nothing were all the handshakes that a port had, and whoever came after them
/// waited for their time to be over.
#[tokio::test]
async fn idle_connections_to_an_mtls_port_keep_no_peer_waiting() {
    let mesh = TestMesh::start().await;
    let limits = HandshakeLimits { handshake_timeout_ms: NEVER_MS, ..HandshakeLimits::default() };
    let (_hosted, url) = start(&mesh, limits).await;
    let mut idle = Vec::new();
    for _ in 0..1_500 {
        idle.push(connect_from(1, &url).await);
    }
    assert!(is_served(&mesh, &url).await, "from the address of the idle ones");
    // Spread over many addresses, they fill all the places that there are.
    for number in 0..1_500_u16 {
        idle.push(connect_from(u8::try_from(2 + number % 20).expect("a host"), &url).await);
    }
    assert!(is_served(&mesh, &url).await);
}

/// The same, by clients who send a byte and no more.
#[tokio::test]
async fn connections_that_stall_in_their_handshake_keep_no_other_address_waiting() {
    let mesh = TestMesh::start().await;
    let limits = HandshakeLimits {
        handshakes_max: 40,
        handshakes_per_address_max: 10,
        handshake_timeout_ms: NEVER_MS,
    };
    let (_hosted, url) = start(&mesh, limits).await;
    let mut stalled = Vec::new();
    for number in 0..400_u16 {
        let mut stream = connect_from(u8::try_from(2 + number % 8).expect("a host"), &url).await;
        // The beginning of a TLS record. Who has been turned away already cannot send it.
        let _ = stream.write_all(&[0x16]).await;
        stalled.push(stream);
    }
    assert!(is_served(&mesh, &url).await);
}

/// The attack on the edge's own port: idle connections took every place that there was for ten seconds.
#[tokio::test]
async fn idle_connections_to_the_edges_tls_port_keep_no_client_waiting() {
    let (mesh, authority) = (TestMesh::start().await, TestAuthority::new());
    let folder = tempfile::tempdir().expect("a folder");
    let signed = authority.sign(&["127.0.0.1"]);
    std::fs::write(folder.path().join("tls.key"), &signed.key).expect("a file");
    std::fs::write(folder.path().join("tls.crt"), &signed.certificate).expect("a file");
    let edge = mesh.edge(&[], |config| {
        config.tls_certificate_file = Some(folder.path().join("tls.crt"));
        config.tls_key_file = Some(folder.path().join("tls.key"));
        config.http.connections_max = 100;
        config.http.handshakes.handshake_timeout_ms = NEVER_MS;
    });
    let edge = edge.await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(connect_from(1, &edge.url).await);
    }
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate");
    roots.add(root).expect("an authority");
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let stream = connect_from(1, &edge.url).await;
    let shaking = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream);
    timeout(PATIENCE, shaking).await.expect("in time").expect("a handshake");
}
