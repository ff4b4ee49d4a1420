//! Certificates and keys in files, which are followed.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use secrecy::{ExposeSecret as _, SecretSlice};
use tokio_rustls::rustls::{
    self,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{
    certificate::Validity as X509Validity,
    prelude::{FromDer as _, X509Certificate},
};

use crate::{
    bounded, error_chain,
    follow::FollowReport,
    metric::{Counter, Gauge, Metric},
    metrics::{self, CERTIFICATE_EXPIRY, CERTIFICATE_LIFETIME},
};

mod inspect;

pub use self::inspect::{Certificate, check_key_pair, names, validity, verify_chain};

/// The largest file of keys or certificates, in bytes. Bundles of all public authorities have a
/// quarter of a megabyte.
pub const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A certificate cannot be used.
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
    /// A file is not PEM of the expected kind.
    #[error("{path} is not valid PEM of the expected kind")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate is invalid, or the key does not belong to it.
    #[error("the certificate and the key do not match or are invalid")]
    Rustls(#[from] rustls::Error),
    /// The certificate does not parse.
    #[error("{0} contains no X.509 certificate")]
    X509(PathBuf),
    /// The certificate has expired.
    #[error("the certificate of {0} has expired")]
    Expired(PathBuf),
}

/// The metrics and the note that report on followed files.
#[derive(Debug)]
pub struct ReloadMetrics {
    /// The key of the note in `/readyz`.
    pub note: &'static str,
    /// The certificate's name in metrics.
    pub certificate: &'static str,
    current: Metric<Gauge, 0>,
    failed: Metric<Counter, 0>,
}

impl ReloadMetrics {
    /// The certificate of a server for any client.
    pub const SERVER: Self = Self {
        note: "certificate",
        certificate: "server",
        current: metrics::TLS_CURRENT,
        failed: metrics::TLS_RELOADS_FAILED,
    };
    /// The certificate of a service for its peers.
    pub const PEERS: Self = Self {
        note: "mtls",
        certificate: "service",
        current: metrics::MTLS_CURRENT,
        failed: metrics::MTLS_RELOADS_FAILED,
    };

    /// How changes of the files are reported.
    #[must_use]
    pub fn report<E: Error>(&self) -> FollowReport<E> {
        FollowReport {
            topic: self.note,
            current: self.current.get(),
            failed: self.failed.get(),
            note: |error| error_chain(error),
        }
    }
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct KeyPairFiles {
    /// The certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

/// Their contents.
pub struct KeyPairContents {
    certificate: Vec<u8>,
    key: SecretSlice<u8>,
}

impl PartialEq for KeyPairContents {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate
            && self.key.expose_secret() == other.key.expose_secret()
    }
}

impl KeyPairContents {
    /// SHA-256 of the first certificate, `sha256:<hex>`. Empty without one.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let first = CertificateDer::pem_slice_iter(&self.certificate).next();
        first.and_then(Result::ok).map_or_else(String::new, |first| fingerprint(&first))
    }
}

/// SHA-256, `sha256:<hex>`.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}

/// A certificate with its key.
pub struct LoadedKeyPair {
    /// The certificate and key as rustls uses them.
    pub certified: CertifiedKey,
    /// When the certificate is valid.
    pub validity: Validity,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its end, in seconds since 1970.
    pub expires: i64,
    /// From its beginning to its end, in seconds.
    pub lifetime: i64,
}

impl Validity {
    /// The validity of a certificate. `None`: it does not parse.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let X509Validity { not_before, not_after } = certificate.validity();
        let (begins, expires) = (not_before.timestamp(), not_after.timestamp());
        Some(Self { expires, lifetime: expires.saturating_sub(begins) })
    }

    /// Sets the gauges of the certificate with this name in metrics.
    #[expect(clippy::cast_precision_loss, reason = "seconds fit for millions of years")]
    pub fn record(self, certificate: &'static str) {
        CERTIFICATE_EXPIRY.with([certificate.into()]).set(self.expires as f64);
        CERTIFICATE_LIFETIME.with([certificate.into()]).set(self.lifetime as f64);
    }
}

impl KeyPairFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<KeyPairContents, CertificateError> {
        Ok(KeyPairContents { certificate: read(&self.certificate)?, key: read(&self.key)?.into() })
    }

    /// Parses the contents.
    ///
    /// # Errors
    /// When they are not a certificate with its key, or it has expired.
    pub fn load(
        &self,
        contents: &KeyPairContents,
        provider: &CryptoProvider,
    ) -> Result<LoadedKeyPair, CertificateError> {
        let chain = certificates(&self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(contents.key.expose_secret())
            .map_err(|source| CertificateError::Pem { path: self.key.clone(), source })?;
        let validity = chain.first().and_then(Validity::of);
        let validity = validity.ok_or_else(|| CertificateError::X509(self.certificate.clone()))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if u64::try_from(validity.expires).is_ok_and(|expires| expires < now.as_secs()) {
            return Err(CertificateError::Expired(self.certificate.clone()));
        }
        Ok(LoadedKeyPair { certified: CertifiedKey::from_der(chain, key, provider)?, validity })
    }
}

/// Reads a PEM file.
///
/// # Errors
/// When it cannot be read, or is larger than [`PEM_BYTES_MAX`].
pub fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    bounded::read_file(path, PEM_BYTES_MAX)
        .map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

/// The certificates of a PEM file.
pub fn certificates(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    parsed.map_err(|source| CertificateError::Pem { path: path.to_owned(), source })
}
