//! Connections between services.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use drawbridge_mesh::HostedService;
use drawbridge_runtime::{HandshakeLimits, Listen, TelemetryConfig};
use drawbridge_tests::{TestAuthority, TestMesh, conformance::Conformance};
use drawbridge_transport::{MtlsServerConfig, Peers};
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

const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any test waits: no connection is accepted because another one timed out.
const NEVER_MS: u64 = 3_600_000;

/// Starts a tool service with mTLS. Returns its URL too.
async fn start(mesh: &TestMesh, handshakes: HandshakeLimits) -> (HostedService, Url) {
    let mut service = Conformance::default();
    service.mtls = MtlsServerConfig { handshakes, ..mesh.mtls_server("test") };
    let (listen, address) =
        Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let keys = mesh.transaction_keys();
    let telemetry = TelemetryConfig::default();
    let hosted = HostedService::start("conformance", &telemetry, |telemetry| async move {
        service.start(listen, keys, &telemetry).await
    });
    (hosted.await.expect("the service"), mesh.grpc_url(address))
}

/// Whether the service responds to a new connection of a peer with a valid certificate.
async fn is_served(mesh: &TestMesh, url: &Url) -> bool {
    let peers = Peers::open(&mesh.mtls("edge")).expect("a certificate");
    let channel = peers.connect(url, "test", None).expect("a channel");
    let context = context();
    let reading = drawbridge_transport::reflection::fetch_contract(channel, &context);
    timeout(STEP_TIMEOUT, reading).await.is_ok_and(|contract| contract.is_ok())
}

/// A connection from this address of loopback.
async fn connect_from(host: u8, to: &Url) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).expect("an address of loopback");
    let to = to.socket_addrs(|| None).expect("an address")[0];
    socket.connect(to).await.expect("a connection")
}

/// The attack: 1,024 silent connections used all handshake permits of a port, and later peers
/// waited for their timeout.
#[tokio::test]
async fn idle_connections_to_an_mtls_port_do_not_block_peers() {
    let mesh = TestMesh::start().await;
    let limits = HandshakeLimits { handshake_timeout_ms: NEVER_MS, ..HandshakeLimits::default() };
    let (_hosted, url) = start(&mesh, limits).await;
    let mut idle = Vec::new();
    for _ in 0..1_500 {
        idle.push(connect_from(1, &url).await);
    }
    assert!(is_served(&mesh, &url).await, "from the address of the idle connections");
    // Connections from many addresses use all permits.
    for number in 0..1_500_u16 {
        idle.push(connect_from(u8::try_from(2 + number % 20).expect("a host"), &url).await);
    }
    assert!(is_served(&mesh, &url).await);
}

/// The same attack with clients that send a single byte.
#[tokio::test]
async fn stalled_handshakes_do_not_block_other_addresses() {
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
        // The first byte of a TLS record. A rejected connection cannot send it.
        let _ = stream.write_all(&[0x16]).await;
        stalled.push(stream);
    }
    assert!(is_served(&mesh, &url).await);
}

/// The attack on the edge's own port: idle connections used all permits for ten seconds.
#[tokio::test]
async fn idle_connections_to_the_edges_tls_port_do_not_block_clients() {
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
    timeout(STEP_TIMEOUT, shaking).await.expect("in time").expect("a handshake");
}
