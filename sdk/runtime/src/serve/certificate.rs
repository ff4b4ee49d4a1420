//! The certificate of a server, which follows its files.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    error_chain,
    follow::FollowedFiles,
    operator_acts::{OperatorActKind, OperatorActs},
    readiness::Readiness,
    tls::{CertificateError, KeyPairContents, KeyPairFiles, ReloadMetrics},
};

/// A server's certificate and key, which change when their files do.
#[derive(Debug)]
pub struct ServerCertificate {
    files: KeyPairFiles,
    provider: Arc<CryptoProvider>,
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
}

impl ServerCertificate {
    /// Loads the certificate, followed by the intermediates without the root, and its key.
    ///
    /// # Errors
    /// When they are invalid.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = KeyPairFiles { certificate: certificate.to_owned(), key: key.to_owned() };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = files.load(&files.read()?, &provider)?;
        current.validity.record(ReloadMetrics::SERVER.certificate);
        let resolver = Arc::new(Resolver(ArcSwap::from_pointee(current.certified)));
        // TLS 1.2 and 1.3.
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Resolver>::clone(&resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, provider, config: Arc::new(config), resolver })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Follows the files until `stopping`: new connections use the current files, open ones are
    /// unaffected. An invalid file is reported in `readiness` and changes nothing else.
    pub async fn follow(
        self: Arc<Self>,
        acts: OperatorActs,
        readiness: Readiness,
        stopping: CancellationToken,
    ) {
        let files = self.files.clone();
        let report = ReloadMetrics::SERVER.report();
        let files = FollowedFiles::new(report, move || files.read(), readiness, stopping);
        let mut files = files.observed_by(move |contents: Option<&KeyPairContents>, applied| {
            let value = contents.map(KeyPairContents::fingerprint).unwrap_or_default();
            let applied = applied.map_err(|error| error_chain(error));
            acts.report_change(OperatorActKind::Certificate, value, applied);
        });
        while let Some(contents) = files.next().await {
            files.report(self.apply(&contents));
        }
    }

    /// Uses the contents of the files. Returns whether the certificate changed.
    fn apply(&self, contents: &KeyPairContents) -> Result<bool, CertificateError> {
        let pair = self.files.load(contents, &self.provider)?;
        pair.validity.record(ReloadMetrics::SERVER.certificate);
        let before = self.resolver.0.swap(Arc::new(pair.certified));
        Ok(before.cert != self.resolver.0.load().cert)
    }
}

#[derive(Debug)]
struct Resolver(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
