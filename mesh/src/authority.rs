//! The certificate authority of one mesh. It ends with the mesh.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use drawbridge_runtime::private_files;
use drawbridge_transport::{MtlsConfig, MtlsServerConfig, SpiffeId, SpiffeIdError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::dependencies::RunFolder;

/// The SPIFFE trust domain of services that listen on loopback.
const TRUST_DOMAIN: &str = "drawbridge.localhost";
/// Longer than any development mesh runs.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Tolerates clocks that are slightly behind.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Signs the certificates of a mesh. Its key is never written to disk. The services' keys are in a
/// folder that is removed with the last clone.
#[derive(Clone, Debug)]
pub struct MeshAuthority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    folder: Arc<RunFolder>,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key or certificate could not be generated.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("cannot write a certificate")]
    Write(#[from] io::Error),
    /// A service name does not form a SPIFFE id.
    #[error(transparent)]
    Id(#[from] SpiffeIdError),
}

impl MeshAuthority {
    /// Creates an authority and writes its certificate.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn new() -> Result<Self, AuthorityError> {
        let mut params = params("drawbridge up")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names =
            vec![SanType::URI(format!("spiffe://{TRUST_DOMAIN}").try_into()?)];
        let key = KeyPair::generate()?;
        let folder = RunFolder::new()?;
        fs::write(folder.path().join("ca.crt"), params.self_signed(&key)?.pem())?;
        Ok(Self { issuer: Arc::new(Issuer::new(params, key)), folder: Arc::new(folder) })
    }

    /// The SPIFFE id of a service.
    ///
    /// # Errors
    /// When the name does not form a SPIFFE id.
    pub fn id(service: &str) -> Result<SpiffeId, AuthorityError> {
        Ok(format!("spiffe://{TRUST_DOMAIN}/{service}").parse()?)
    }

    /// The file of its own certificate.
    #[must_use]
    pub fn trust_bundle_file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// The certificate files of a service, created on first use.
    ///
    /// # Errors
    /// When a certificate cannot be created or written.
    pub fn issue(&self, service: &str) -> Result<MtlsConfig, AuthorityError> {
        let file = |kind: &str| self.folder.path().join(format!("{service}.{kind}"));
        let config = MtlsConfig {
            mtls_certificate_file: Some(file("crt")),
            mtls_key_file: Some(file("key")),
            mtls_trust_bundle_file: Some(self.trust_bundle_file()),
            allow_plaintext: false,
        };
        if file("crt").exists() {
            return Ok(config);
        }
        let mut params = params(service)?;
        // Services verify only the SPIFFE id. The other names are for tools such as curl, which
        // verify host names.
        params.subject_alt_names.push(SanType::URI(Self::id(service)?.as_str().try_into()?));
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into()?));
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, self.issuer.as_ref())?;
        private_files::create(&file("key"))?.write_all(key.serialize_pem().as_bytes())?;
        fs::write(file("crt"), certificate.pem())?;
        Ok(config)
    }

    /// The same for a server that the given services may call.
    ///
    /// # Errors
    /// When a certificate cannot be created or written.
    pub fn issue_to_server(
        &self,
        service: &str,
        allow: &[&str],
    ) -> Result<MtlsServerConfig, AuthorityError> {
        let mtls_allow = allow.iter().map(|name| Self::id(name)).collect::<Result<_, _>>()?;
        Ok(MtlsServerConfig { identity: self.issue(service)?, mtls_allow, ..Default::default() })
    }
}

fn params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (SystemTime::now() - CLOCK_SKEW).into();
    params.not_after = (SystemTime::now() + LIFETIME).into();
    Ok(params)
}
