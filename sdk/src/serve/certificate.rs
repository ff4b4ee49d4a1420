//! The certificate of a server, which follows its files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::task::spawn_blocking;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::admin::Readiness;

/// How often the files are looked at. Contents count and not events, so that every way to change a file is
/// seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file is not PEM of its kind.
    #[error("{path} is not PEM of what it should hold")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate is none, or the key is not its key.
    #[error("cannot use the certificate with its key")]
    Rustls(#[from] rustls::Error),
    /// The certificate does not parse.
    #[error("{0} holds no X.509 certificate")]
    X509(PathBuf),
    /// The certificate is too old.
    #[error("the certificate of {0} has expired")]
    Expired(PathBuf),
}

/// A server's certificate and key, which change when their files do.
#[derive(Debug)]
pub struct Certificate {
    files: Files,
    provider: Arc<CryptoProvider>,
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
}

#[derive(Clone, Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files hold.
struct Contents {
    certificate: Vec<u8>,
    key: SecretSlice<u8>,
}

impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.key.expose_secret() == other.key.expose_secret()
    }
}

impl Certificate {
    /// Loads the certificate, with those of the authorities between it and the root behind it, and its key.
    ///
    /// # Errors
    /// When they cannot be served.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = files.load(&files.read()?, &provider)?;
        let resolver = Arc::new(Resolver(ArcSwap::from_pointee(current)));
        // TLS 1.2 and 1.3.
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Resolver>::clone(&resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        counter!("tls_certificate_reloads_failed_total").absolute(0);
        gauge!("tls_certificate_current").set(1);
        Ok(Self { files, provider, config: Arc::new(config), resolver })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Follows the files until `stopping`: new connections get what is there now, open ones go on. What is
    /// wrong with the files shows in `readiness` and changes nothing else.
    pub async fn follow(self: Arc<Self>, readiness: Readiness, stopping: CancellationToken) {
        // The first look loads again what `open` has loaded, in case it has changed since.
        let (mut seen, mut tried) = (None, None);
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(interval.tick()).await.is_some() {
            let files = self.files.clone();
            let contents = match spawn_blocking(move || files.read()).await {
                Ok(contents) => contents.map(Arc::new),
                Err(error) => {
                    tracing::error!(%error, "following the certificate broke off");
                    return;
                }
            };
            // Two files do not change at once: what is the same at two looks has settled.
            let key = contents.as_ref().ok().cloned();
            let settled = seen.replace(key.clone()).is_some_and(|before| before == key);
            if !settled || tried.as_ref() == Some(&key) {
                continue;
            }
            tried = Some(key);
            let wrong = self.take(contents.as_deref()).err();
            readiness.note("certificate", wrong);
        }
    }

    /// Serves what the files hold, or says why not.
    fn take(&self, contents: Result<&Contents, &CertificateError>) -> Result<(), String> {
        let loaded = match contents {
            Ok(contents) => self.files.load(contents, &self.provider).map_err(|error| crate::told(&error)),
            Err(error) => Err(crate::told(error)),
        };
        match loaded {
            Ok(certificate) => {
                if self.resolver.0.load().cert != certificate.cert {
                    tracing::info!("the certificate changed");
                }
                self.resolver.0.store(Arc::new(certificate));
                gauge!("tls_certificate_current").set(1);
                Ok(())
            }
            Err(wrong) => {
                tracing::error!(wrong, "the certificate cannot be used; the one before stays");
                counter!("tls_certificate_reloads_failed_total").increment(1);
                gauge!("tls_certificate_current").set(0);
                Err(wrong)
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<Contents, CertificateError> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|source| CertificateError::Read { path: path.clone(), source })
        };
        Ok(Contents { certificate: read(&self.certificate)?, key: read(&self.key)?.into() })
    }

    fn load(&self, contents: &Contents, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
        let wrong = |path: &PathBuf| {
            let path = path.clone();
            |source| CertificateError::Pem { path, source }
        };
        let chain = CertificateDer::pem_slice_iter(&contents.certificate);
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(wrong(&self.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(contents.key.expose_secret()).map_err(wrong(&self.key))?;
        let expires = chain.first().and_then(|first| {
            let (_, certificate) = X509Certificate::from_der(first).ok()?;
            Some(certificate.validity().not_after.timestamp())
        });
        let expires = expires.ok_or_else(|| CertificateError::X509(self.certificate.clone()))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if u64::try_from(expires).is_ok_and(|expires| expires < now.as_secs()) {
            return Err(CertificateError::Expired(self.certificate.clone()));
        }
        let loaded = CertifiedKey::from_der(chain, key, provider)?;
        #[expect(clippy::cast_precision_loss, reason = "seconds fit for millions of years")]
        gauge!("tls_certificate_expiry_timestamp_seconds").set(expires as f64);
        Ok(loaded)
    }
}

#[derive(Debug)]
struct Resolver(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
