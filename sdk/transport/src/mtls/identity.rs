//! A service's current certificate and trusted authorities, as loaded from its files.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use tokio_rustls::rustls::{
    RootCertStore, SignatureScheme,
    client::ResolvesClientCert,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use super::{MtlsError, SpiffeId};
use drawbridge_runtime::{
    OperatorActKind, OperatorActs, Readiness, error_chain,
    follow::FollowedFiles,
    tls::{self, KeyPairContents, KeyPairFiles, ReloadMetrics, Validity},
};

/// A service's certificate and trusted authorities.
#[derive(Debug)]
pub(crate) struct Identity {
    /// It is constant while the service runs.
    pub(crate) id: SpiffeId,
    pub(crate) provider: Arc<CryptoProvider>,
    files: Files,
    current: ArcSwap<Material>,
}

#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) pair: KeyPairFiles,
    pub(crate) trust_bundle: PathBuf,
}

#[derive(PartialEq)]
struct Contents {
    pair: KeyPairContents,
    trust_bundle: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Material {
    certified: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    /// Verifies clients by the same authorities.
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

impl Identity {
    pub(crate) fn open(files: Files) -> Result<Arc<Self>, MtlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (id, material) = files.load(&files.read()?, &provider)?;
        Ok(Arc::new(Self { id, provider, files, current: ArcSwap::from_pointee(material) }))
    }

    /// Follows the files until `stopping`: new connections use the current files, open ones are
    /// unaffected.
    pub(crate) async fn follow(
        self: Arc<Self>,
        acts: OperatorActs,
        readiness: Readiness,
        stopping: CancellationToken,
    ) {
        let files = self.files.clone();
        let report = ReloadMetrics::PEERS.report();
        let files = FollowedFiles::new(report, move || files.read(), readiness, stopping);
        let mut files = files.observed_by(move |contents: Option<&Contents>, applied| {
            let value = contents.map(Contents::fingerprints).unwrap_or_default();
            let applied = applied.map_err(|error| error_chain(error));
            acts.report_change(OperatorActKind::Mtls, value, applied);
        });
        while let Some(contents) = files.next().await {
            files.report(self.apply(&contents));
        }
    }

    /// Uses the contents of the files. Returns whether the certificate or the authorities changed.
    fn apply(&self, contents: &Contents) -> Result<bool, MtlsError> {
        let (id, material) = self.files.load(contents, &self.provider)?;
        if id != self.id {
            return Err(MtlsError::IdentityChanged { previous: self.id.clone(), current: id });
        }
        let before = self.current.swap(Arc::new(material));
        let now = self.current.load();
        Ok(before.certified.cert != now.certified.cert || before.roots.roots != now.roots.roots)
    }

    pub(crate) fn material(&self) -> Arc<Material> {
        self.current.load_full()
    }
}

impl Contents {
    /// What identifies the certificate and the file of authorities.
    fn fingerprints(&self) -> String {
        let authorities = tls::fingerprint(&self.trust_bundle);
        format!("certificate {}, trust bundle {authorities}", self.pair.fingerprint())
    }
}

impl Files {
    fn read(&self) -> Result<Contents, MtlsError> {
        Ok(Contents { pair: self.pair.read()?, trust_bundle: tls::read(&self.trust_bundle)? })
    }

    fn load(
        &self,
        contents: &Contents,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(SpiffeId, Material), MtlsError> {
        let pair = self.pair.load(&contents.pair, provider)?;
        let id = SpiffeId::of(pair.certified.end_entity_cert()?)?;
        let authorities = tls::certificates(&self.trust_bundle, &contents.trust_bundle)?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone())?;
        }
        let roots = Arc::new(roots);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
                .build()
                .map_err(|source| MtlsError::TrustBundle {
                    path: self.trust_bundle.clone(),
                    source,
                })?;
        pair.validity.record(ReloadMetrics::PEERS.certificate);
        let validities = authorities.iter().filter_map(Validity::of);
        if let Some(first) = validities.min_by_key(|validity| validity.expires) {
            first.record("trust_bundle");
        }
        Ok((id, Material { certified: Arc::new(pair.certified), roots, clients }))
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.material().certified))
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.material().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
