use std::{io, net::SocketAddr, sync::Arc};

use axum::serve::Listener;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ConfigBuilder, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::{WantsServerCert, WebPkiClientVerifier},
    },
    server::TlsStream,
};

/// A certificate authority for one test.
pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, as PEM.
    pub pem: String,
}

/// A certificate and its key, as PEM.
pub struct SignedCertificate {
    /// The certificate, followed by those of the intermediate authorities.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl TestAuthority {
    /// A new authority, not yet trusted by any party.
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Issues a certificate for servers with these names or addresses, and for clients.
    pub fn sign(&self, names: &[&str]) -> SignedCertificate {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        SignedCertificate { certificate, key: key.serialize_pem() }
    }
}

impl Default for TestAuthority {
    fn default() -> Self {
        Self::new()
    }
}

/// Accepts TLS connections on a free port of loopback.
pub struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl TlsListener {
    /// Listens with this certificate.
    pub async fn bind(signed: &SignedCertificate) -> Self {
        Self::with(signed, ServerConfig::builder().with_no_client_auth()).await
    }

    /// Listens with this certificate, and accepts clients with a certificate of this authority.
    pub async fn bind_for(signed: &SignedCertificate, clients: &TestAuthority) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(clients.pem.as_bytes()).expect("a certificate");
        roots.add(root).expect("an authority");
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
        Self::with(signed, ServerConfig::builder().with_client_cert_verifier(verifier)).await
    }

    async fn with(
        signed: &SignedCertificate,
        config: ConfigBuilder<ServerConfig, WantsServerCert>,
    ) -> Self {
        let chain = CertificateDer::pem_slice_iter(signed.certificate.as_bytes());
        let chain = chain.collect::<Result<_, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("a key");
        let config = config.with_single_cert(chain, key);
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            tls: TlsAcceptor::from(Arc::new(config.expect("a certificate with its key"))),
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.expect("a connection");
            // A client that does not trust the certificate fails the handshake.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
