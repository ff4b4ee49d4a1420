use std::{
    convert::Infallible,
    fs,
    future::Ready,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::{Status, body::Body, server::NamedService};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Channel;
use url::Url;

use super::*;
use crate::{ChannelError, GrpcServer, Peer};
use drawbridge_runtime::{Listen, ServiceBuilder};

mod clients;
mod files;
mod servers;

const HOUR: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(30);

/// A test's own authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A valid certificate of a service.
    fn sign(&self, service: &str) -> Signed {
        self.sign_with(service, |_| {})
    }

    fn sign_with(&self, service: &str, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = (SystemTime::now() - HOUR).into();
        params.not_after = (SystemTime::now() + HOUR).into();
        params.subject_alt_names.push(uri(id(service).as_str()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn id(service: &str) -> SpiffeId {
    format!("spiffe://acme.example/{service}").parse().unwrap()
}

/// A service's files.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(signed: &Signed, trusted: &[&Authority]) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.write_pair(signed);
        files.trust(trusted);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_pair(&self, signed: &Signed) {
        fs::write(self.path("tls.key"), &signed.key).unwrap();
        fs::write(self.path("tls.crt"), &signed.certificate).unwrap();
    }

    fn trust(&self, authorities: &[&Authority]) {
        let pem: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
        fs::write(self.path("ca.crt"), pem).unwrap();
    }

    fn config(&self) -> MtlsConfig {
        MtlsConfig {
            mtls_certificate_file: Some(self.path("tls.crt")),
            mtls_key_file: Some(self.path("tls.key")),
            mtls_trust_bundle_file: Some(self.path("ca.crt")),
            allow_plaintext: false,
        }
    }

    fn peers(&self) -> Peers {
        Peers::open(&self.config()).unwrap()
    }
}

/// A server that stops when it is dropped.
struct Server {
    builder: ServiceBuilder,
    address: SocketAddr,
    _files: Option<Files>,
}

impl Server {
    /// The service `tools` of this authority, for clients with these names.
    fn start(authority: &Authority, allow: &[&str]) -> Self {
        let files = Files::new(&authority.sign("tools"), &[authority]);
        let server = Self::with(&files, allow);
        Self { _files: Some(files), ..server }
    }

    fn with(files: &Files, allow: &[&str]) -> Self {
        let builder = ServiceBuilder::new();
        let config = MtlsServerConfig {
            identity: files.config(),
            mtls_allow: allow.iter().map(|name| id(name)).collect(),
            ..Default::default()
        };
        let peers = Peers::start(&builder, &config.identity).unwrap();
        let server = GrpcServer::unverified(WhoAmI).accept(&peers, &config).unwrap();
        let address =
            server.start(&builder, &"127.0.0.1:0".parse().unwrap()).unwrap().tcp().unwrap();
        builder.readiness().set_ready();
        Self { builder, address, _files: None }
    }

    fn url(&self) -> Url {
        format!("https://{}", self.address).parse().unwrap()
    }
}

/// Returns the caller's id.
#[derive(Clone)]
struct WhoAmI;

impl NamedService for WhoAmI {
    const NAME: &'static str = "drawbridge.code.v1.CodeService";
}

impl tower::Service<Request<Body>> for WhoAmI {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let id = request.extensions().get::<Peer>().and_then(|peer| peer.id.clone());
        let message = id.map_or_else(|| "no id".to_owned(), |id| id.to_string());
        std::future::ready(Ok(Status::aborted(message).into_http()))
    }
}

async fn check_health(channel: Channel) -> Result<(), Status> {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(|_| ())
}

/// Checks the health as this client.
async fn health(client: &Peers, url: &Url) -> Result<(), Status> {
    check_health(client.connect(url, "tools", None).unwrap()).await
}

#[tokio::test]
async fn an_allowed_service_is_accepted_and_identified_by_its_id() {
    let authority = Authority::new();
    let server = Server::start(&authority, &["edge", "cli"]);
    for name in ["edge", "cli"] {
        let client = Files::new(&authority.sign(name), &[&authority]).peers();
        health(&client, &server.url()).await.unwrap();
        let balanced = client.balanced(&[server.url()], "tools", None).unwrap();
        let mut raw = tonic::client::Grpc::new(balanced);
        raw.ready().await.unwrap();
        let path = "/drawbridge.code.v1.CodeService/Search".parse().unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let status = raw.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
        assert_eq!(status.message(), id(name).as_str());
    }
}

#[tokio::test]
async fn a_peer_that_is_not_a_sibling_may_be_named() {
    let authority = Authority::new();
    let server = Server::start(&authority, &["edge"]);
    let client = Files::new(&authority.sign("edge"), &[&authority]).peers();
    check_health(client.connect(&server.url(), "other", Some(&id("tools"))).unwrap())
        .await
        .unwrap();
    assert!(
        check_health(client.connect(&server.url(), "tools", Some(&id("other"))).unwrap())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn plaintext_stays_on_loopback_unless_it_is_allowed() {
    let (url, local) =
        ("http://tools.internal:7210".parse().unwrap(), "http://localhost:7210".parse().unwrap());
    let secure = "https://tools.internal:7210".parse().unwrap();
    let plain = Peers::default();
    assert!(matches!(plain.connect(&url, "tools", None), Err(ChannelError::Plaintext { .. })));
    assert!(matches!(
        plain.balanced(std::slice::from_ref(&url), "tools", None),
        Err(ChannelError::Plaintext { .. })
    ));
    assert!(matches!(
        plain.connect(&secure, "tools", None),
        Err(ChannelError::NoCertificate { .. })
    ));
    let path = "https://tools.internal:7210/path".parse().unwrap();
    let authority = Authority::new();
    let files = Files::new(&authority.sign("edge"), &[&authority]);
    assert!(matches!(files.peers().connect(&path, "tools", None), Err(ChannelError::Form { .. })));
    assert!(plain.connect(&local, "tools", None).is_ok());

    assert!(matches!(
        files.peers().connect(&url, "tools", None),
        Err(ChannelError::Plaintext { .. })
    ));
    assert!(files.peers().connect(&secure, "tools", None).is_ok());

    let allowed = MtlsConfig { allow_plaintext: true, ..MtlsConfig::default() };
    assert!(Peers::open(&allowed).unwrap().connect(&url, "tools", None).is_ok());

    let everywhere: Listen = "0.0.0.0:0".parse().unwrap();
    let builder = ServiceBuilder::new();
    let refused = GrpcServer::unverified(WhoAmI).start(&builder, &everywhere).unwrap_err();
    assert!(
        drawbridge_runtime::error_chain(&refused).contains("plaintext beyond loopback"),
        "{refused:?}"
    );
    let allowing = MtlsServerConfig { identity: allowed, ..Default::default() };
    let server = GrpcServer::unverified(WhoAmI)
        .accept(&Peers::open(&allowing.identity).unwrap(), &allowing)
        .unwrap();
    assert!(server.start(&builder, &everywhere).is_ok());
}

#[test]
fn a_server_with_a_certificate_must_allow_a_peer() {
    let authority = Authority::new();
    let files = Files::new(&authority.sign("tools"), &[&authority]);
    let config = MtlsServerConfig { identity: files.config(), ..Default::default() };
    let refused = GrpcServer::unverified(WhoAmI).accept(&files.peers(), &config);
    assert!(matches!(refused, Err(MtlsError::NoAllowedPeers)));
}

#[tokio::test]
async fn a_service_that_requires_spiffe_ids_is_not_served_over_a_unix_socket() {
    let authority = Authority::new();
    let files = Files::new(&authority.sign("tools"), &[&authority]);
    let builder = ServiceBuilder::new();
    let config = MtlsServerConfig {
        identity: files.config(),
        mtls_allow: vec![id("edge")],
        ..Default::default()
    };
    let peers = Peers::start(&builder, &config.identity).unwrap();
    let server = GrpcServer::unverified(WhoAmI).accept(&peers, &config).unwrap();
    let path = files.path("tools.sock");
    let listen = format!("unix:{}", path.display()).parse().unwrap();
    let refused = drawbridge_runtime::error_chain(&server.start(&builder, &listen).unwrap_err());
    assert!(refused.contains("--mtls-allow cannot be enforced"), "{refused}");
    assert!(!path.exists());
}
