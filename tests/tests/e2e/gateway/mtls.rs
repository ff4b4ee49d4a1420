//! mTLS between services.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use drawbridge_mesh::{HostedService, MeshAuthority, Ports, WORKLOAD};
use drawbridge_proto::auth::v1::{
    AuthorizeRequest, FilterCatalogRequest, IntrospectRequest, WatchRequest,
    auth_service_client::AuthServiceClient,
};
use drawbridge_runtime::{Listen, RequestId, TelemetryConfig};
use drawbridge_tests::{Client, Reply, TestMesh, conformance::Conformance, permit, repository};
use drawbridge_transport::{CallContext, MtlsConfig, MtlsServerConfig, Peers, reflection};
use http::StatusCode;
use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        version::TLS13,
    },
};
use tonic::{Code, transport::Channel};
use url::Url;

use crate::catalog::PythonService;

mod reload;

const STEP_TIMEOUT: Duration = Duration::from_secs(60);

async fn search(client: &Client) -> Reply {
    client
        .call_tool(
            "code_search",
            json!({ "query": "permit", "path": "policies", "max_results": 1 }),
        )
        .await
}

fn is_good(reply: &Reply) -> bool {
    reply.status == StatusCode::OK
        && reply.json["result"]["isError"] != true
        && reply.error_code().is_none()
}

/// Whether the service accepts the channel and returns its contract.
async fn is_accepted(channel: Channel) -> bool {
    let context = CallContext::new(RequestId::generate(), Duration::from_secs(20));
    reflection::fetch_contract(channel, &context).await.is_ok()
}

/// Whether an HTTP/2 client that trusts the service but presents no certificate gets a response.
async fn is_answered_without_certificate(url: &Url, bundle: &Path) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(bundle).expect("a certificate")).expect("an authority");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = url.socket_addrs(|| None).expect("an address")[0];
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::from(address.ip());
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
    // The server verifies after the client's handshake. An HTTP/2 server would send the first
    // frame.
    timeout(STEP_TIMEOUT, stream.read_u8()).await.expect("in time").is_ok()
}

async fn metrics(admin: impl std::fmt::Display) -> String {
    let answer = reqwest::get(format!("http://{admin}/metrics")).await.expect("metrics");
    answer.text().await.expect("metrics")
}

/// The gRPC services and their URLs.
fn services(mesh: &TestMesh) -> Vec<(String, Url)> {
    let state = &mesh.mesh.state;
    let tools = state.services.iter().map(|(name, url)| (name.clone(), url.clone()));
    tools.chain([("auth".to_owned(), state.auth_url.clone())]).collect()
}

#[tokio::test]
async fn a_call_uses_mtls_through_the_whole_mesh() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let found = search(&alice).await;
    assert!(is_good(&found), "{found:?}");
    for (name, url) in services(&mesh) {
        assert_eq!(url.scheme(), "https", "{name}");
        let service = mesh.mesh.service(&name).expect("a service");
        let metrics = metrics(service.running.admin).await;
        assert!(
            metrics.contains("certificate_expiry_timestamp_seconds{certificate=\"service\"} "),
            "{name}: {metrics}"
        );
        assert!(
            metrics.contains("certificate_expiry_timestamp_seconds{certificate=\"trust_bundle\"} "),
            "{name}: {metrics}"
        );
        assert!(metrics.contains("mtls_certificate_current 1"), "{name}: {metrics}");
    }
    // Each service logs the SPIFFE id of its peer.
    assert!(mesh.log().contains("\"peer\":\"spiffe://drawbridge.localhost/edge\""));
}

#[tokio::test]
async fn every_service_accepts_only_its_allowed_peers() {
    let (mesh, other_mesh) = (TestMesh::start().await, MeshAuthority::new().expect("an authority"));
    let authority = mesh.mesh.authority.as_ref().expect("an authority");
    let bundle = Some(authority.trust_bundle_file());
    let edge = authority.issue("edge").expect("a certificate");
    let unlisted = authority.issue("unlisted").expect("a certificate");
    // The same name, issued by an untrusted authority.
    let other = other_mesh.issue("edge").expect("a certificate");
    let other = MtlsConfig { mtls_trust_bundle_file: bundle, ..other };
    for (name, url) in services(&mesh) {
        let by = |config: &MtlsConfig| {
            Peers::open(config)
                .expect("a certificate")
                .connect(&url, &name, None)
                .expect("a channel")
        };
        assert!(is_accepted(by(&edge)).await, "{name}: the edge");
        assert!(!is_accepted(by(&unlisted)).await, "{name}: a service that is not allowed");
        assert!(!is_accepted(by(&other)).await, "{name}: another authority's edge");
        let plain = url.as_str().replace("https:", "http:").parse().expect("a URL");
        assert!(
            !is_accepted(drawbridge_transport::connect(&plain).expect("a channel")).await,
            "{name}: plaintext"
        );

        assert!(
            !is_answered_without_certificate(&url, &authority.trust_bundle_file()).await,
            "{name}: no certificate"
        );

        let admin = mesh.mesh.service(&name).expect("a service").running.admin;
        let metrics = metrics(admin).await;
        for reason in ["not_allowed", "unknown_authority", "not_tls", "no_certificate"] {
            let line = format!("grpc_server_handshakes_failed_total{{reason=\"{reason}\"}}");
            assert!(metrics.contains(&line), "{name}: {line} is not in {metrics}");
        }
    }
}

#[tokio::test]
async fn the_edge_rejects_a_service_with_an_unexpected_identity() {
    let mesh = TestMesh::start().await;
    let state = &mesh.mesh.state;
    let alice = mesh.client("alice").await;
    // The address of `code` leads to `invoices`, which has a valid certificate of its own name.
    let edge = mesh.edge(&[("code", &state.services["invoices"])], |_| {}).await;
    assert!(edge.client(&alice).tools().await.is_empty());
    let refused = metrics(edge.hosted.running.admin).await;
    assert!(
        refused.contains("grpc_client_handshakes_failed_total{reason=\"not_allowed\"}"),
        "{refused}"
    );

    // The address of auth leads to `code`.
    let edge = mesh
        .edge(&[("code", &state.services["code"])], |config| {
            config.auth_urls = vec![state.services["code"].clone().into()];
        })
        .await;
    let refused = search(&edge.client(&alice)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");

    // The expected SPIFFE id can be configured.
    let id = MeshAuthority::id("auth").expect("an id");
    let edge = mesh
        .edge(&[("code", &state.services["code"])], |config| config.auth_spiffe_id = Some(id))
        .await;
    assert!(is_good(&search(&edge.client(&alice)).await));
}

#[tokio::test]
async fn only_an_edge_may_call_auth_about_access_tokens() {
    let mesh = TestMesh::start().await;
    let (url, authority) =
        (&mesh.mesh.state.auth_url, mesh.mesh.authority.as_ref().expect("an authority"));
    for (name, expected) in [("edge", true), ("code", false), (WORKLOAD, false)] {
        let peers = Peers::open(&authority.issue(name).expect("files")).expect("a certificate");
        let mut auth = AuthServiceClient::new(peers.connect(url, "auth", None).expect("a channel"));
        let authorized = auth.authorize(AuthorizeRequest::default()).await;
        let filtered = auth.filter_catalog(FilterCatalogRequest::default()).await;
        for code in [
            authorized.err().map(|status| status.code()),
            filtered.err().map(|status| status.code()),
        ] {
            assert_eq!(code != Some(Code::PermissionDenied), expected, "{name}: {code:?}");
        }
        // RPCs that every service may call.
        assert!(auth.watch(WatchRequest {}).await.is_ok(), "{name}");
        let request = IntrospectRequest { transaction_tokens: vec!["nonsense".to_owned()] };
        assert!(auth.introspect(request).await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn the_documented_certificates_work() {
    let text = fs::read_to_string(repository().join("docs/how-to/mtls.md")).expect("a file");
    let blocks =
        text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().expect("a block"));
    let script =
        blocks.into_iter().find(|block| block.starts_with("openssl ")).expect("the example");
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("sh").args(["-ec", script]).current_dir(folder.path()).output();
    let made = made.expect("a shell, and openssl (apt-get install openssl)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: String| Some(folder.path().join(name));
    let config = |service: &str| MtlsConfig {
        mtls_certificate_file: file(format!("{service}.crt")),
        mtls_key_file: file(format!("{service}.key")),
        mtls_trust_bundle_file: file("ca.crt".to_owned()),
        allow_plaintext: false,
    };
    let mtls = MtlsServerConfig {
        identity: config("code"),
        mtls_allow: vec!["spiffe://acme.example/edge".parse().expect("an id")],
        ..Default::default()
    };
    let mut code = Conformance::default();
    code.mtls = mtls;
    let keys = "http://127.0.0.1:1/".parse().expect("a URL");
    let (listen, address) =
        Listen::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let telemetry = TelemetryConfig::default();
    let code = HostedService::start("code", &telemetry, |telemetry| async move {
        code.start(listen, keys, &telemetry).await
    });
    let _code = code.await.expect("a service");
    let url: Url = format!("https://{address}").parse().expect("a URL");
    for (name, expected) in [("edge", true), ("auth", false)] {
        let peers = Peers::open(&config(name)).expect("a certificate");
        assert_eq!(
            is_accepted(peers.connect(&url, "code", None).expect("a channel")).await,
            expected,
            "{name}"
        );
    }
}

#[tokio::test]
async fn transaction_keys_and_epochs_use_mtls_too() {
    let mesh = TestMesh::start().await;
    // The services know only auth's gRPC port, so a successful call fetched the keys from it.
    assert!(is_good(&search(&mesh.client("alice").await).await));
    let auth = &mesh.mesh.state.auth_url;
    let channel = drawbridge_tests::connect(auth).expect("a channel");
    let mut epochs = AuthServiceClient::new(channel)
        .watch(WatchRequest {})
        .await
        .expect("a stream")
        .into_inner();
    assert!(epochs.message().await.expect("an epoch").is_some());
    let plain =
        auth.join("/.well-known/jwks.json").expect("a URL").as_str().replace("https:", "http:");
    assert!(reqwest::get(plain).await.is_err());
}

#[tokio::test]
async fn without_mtls_a_mesh_uses_plaintext_on_loopback() {
    let mesh = TestMesh::with(|config| {
        config.mtls = false;
        config.ports = Ports::Free;
    })
    .await;
    assert!(mesh.mesh.authority.is_none());
    for (name, url) in services(&mesh) {
        assert_eq!(url.scheme(), "http", "{name}");
    }
    assert!(is_good(&search(&mesh.client("alice").await).await));
}

#[tokio::test]
async fn a_tool_service_in_python_uses_mtls() {
    let contract = PythonService::contract().await;
    let mesh = TestMesh::with(|config| permit(config, "greeter", &contract)).await;
    let authority = mesh.mesh.authority.as_ref().expect("an authority");
    let files = authority.issue("greeter").expect("a certificate");
    let start = |allowed: &str| {
        let of = |file: &Option<PathBuf>| file.clone().expect("a file").into_os_string();
        let [certificate, key, bundle] =
            [&files.mtls_certificate_file, &files.mtls_key_file, &files.mtls_trust_bundle_file]
                .map(of);
        let allowed = MeshAuthority::id(allowed).expect("an id").to_string();
        let options = [
            ("--mtls-certificate-file", certificate.as_os_str()),
            ("--mtls-key-file", key.as_os_str()),
            ("--mtls-trust-bundle-file", bundle.as_os_str()),
            ("--mtls-allow", OsStr::new(&allowed)),
        ];
        PythonService::with_mtls(&mesh.transaction_keys(), &options)
    };
    let alice = mesh.client("alice").await;
    let service = start("edge");
    let edge = mesh.edge(&[("greeter", &service.url)], |_| {}).await;
    let greeted = edge.client(&alice).call_tool("greeter_greet", json!({ "name": "Ada" })).await;
    assert_eq!(
        greeted.json["result"]["structuredContent"]["greeting"], "Hello, Ada!",
        "{greeted:?}"
    );

    let closed = start("another");
    let edge = mesh.edge(&[("greeter", &closed.url)], |_| {}).await;
    assert!(edge.client(&alice).tools().await.is_empty());
}
