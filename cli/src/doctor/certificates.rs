//! Certificates and keys in files.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use drawbridge_runtime::{
    error_chain,
    tls::{self, CertificateError, KeyPairFiles},
};
use drawbridge_transport::{MtlsConfig, MtlsError, Peers};
use jiff::Timestamp;

use super::check::{Check, Finding};

/// Before this time a certificate should have been renewed.
const RENEWAL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Before this time a certificate that lives for days, and not for weeks, should have been renewed.
const RENEWAL_PARTS: u32 = 10;

/// The files of a certificate.
#[derive(Clone, Debug)]
pub(super) struct CertificateTarget {
    /// The service that uses it.
    pub(super) used_by: String,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// The trusted authorities. Absent: a server's certificate for any client.
    pub(super) trust_bundle: Option<PathBuf>,
}

impl CertificateTarget {
    pub(super) fn check(self) -> Check {
        let subject = format!("{} of {}", self.certificate.display(), self.used_by);
        Check::blocking("certificate", subject, move || self.inspect())
    }

    fn inspect(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        match &self.trust_bundle {
            Some(bundle) => self.mtls(bundle, &mut findings),
            None => self.server(&mut findings),
        }
        if let Some(finding) = check_mode(&self.key) {
            findings.push(finding);
        }
        findings
    }

    /// The certificate of a service for its peers.
    fn mtls(&self, bundle: &Path, findings: &mut Vec<Finding>) {
        let config = MtlsConfig {
            mtls_certificate_file: Some(self.certificate.clone()),
            mtls_key_file: Some(self.key.clone()),
            mtls_trust_bundle_file: Some(bundle.to_owned()),
            allow_plaintext: false,
        };
        let id = match Peers::open(&config) {
            Ok(peers) => peers.id().map(ToString::to_string).unwrap_or_default(),
            Err(error) => {
                findings.push(judge_mtls(&error));
                return;
            }
        };
        let Some(chain) = self.read(&self.certificate, findings) else { return };
        let Some(authorities) = self.read(bundle, findings) else { return };
        if let Err(error) = tls::verify_chain(&chain, &authorities) {
            findings.push(Finding::failed(
                format!("its chain does not lead to the trust bundle: {error}"),
                format!(
                    "put the authority that issued it into {}, and intermediates below the leaf \
                     in {}",
                    bundle.display(),
                    self.certificate.display()
                ),
            ));
            return;
        }
        findings.push(judge_expiry(&chain[0], &format!("it is {id}")));
        for authority in &authorities {
            let finding = judge_expiry(authority, "the trust bundle");
            findings.extend(Some(finding).filter(|finding| finding.to_do.is_some()));
        }
    }

    /// The certificate of a server for any client.
    fn server(&self, findings: &mut Vec<Finding>) {
        let files = KeyPairFiles { certificate: self.certificate.clone(), key: self.key.clone() };
        if let Err(error) = tls::check_key_pair(&files) {
            findings.push(judge_certificate(&error));
            return;
        }
        let Some(chain) = self.read(&self.certificate, findings) else { return };
        let names = tls::names(&chain[0]).join(", ");
        findings.push(judge_expiry(&chain[0], &format!("it is for {names}")));
    }

    /// The certificates of a file; at least one.
    fn read(&self, path: &Path, findings: &mut Vec<Finding>) -> Option<Vec<tls::Certificate>> {
        let read = tls::read(path).and_then(|pem| tls::certificates(path, &pem));
        match read {
            Ok(all) if !all.is_empty() => Some(all),
            Ok(_) => {
                let error = CertificateError::X509(path.to_owned());
                findings.push(judge_certificate(&error));
                None
            }
            Err(error) => {
                findings.push(judge_certificate(&error));
                None
            }
        }
    }
}

fn judge_mtls(error: &MtlsError) -> Finding {
    match error {
        MtlsError::Certificate(error) => judge_certificate(error),
        MtlsError::Svid(error) => Finding::failed(
            error_chain(error),
            "issue a certificate with one URI among its names, the service's SPIFFE id \
             (docs/how-to/mtls.md)",
        ),
        error => Finding::failed(error_chain(error), "correct the file (docs/how-to/mtls.md)"),
    }
}

fn judge_certificate(error: &CertificateError) -> Finding {
    let to_do = match error {
        CertificateError::Read { .. } => {
            "see that the file exists, and that the service's user may read it"
        }
        CertificateError::Pem { .. } | CertificateError::X509(_) => "write a PEM file",
        CertificateError::Rustls(_) => "install the key that belongs to the certificate",
        CertificateError::Expired(_) => {
            "renew it; services take the new files without a restart, and refuse connections until \
             then"
        }
    };
    Finding::failed(error_chain(error), to_do)
}

/// Warns of a certificate that expires within a week or, if it lives shorter than that, within a
/// tenth of its life.
fn judge_expiry(certificate: &tls::Certificate, what: &str) -> Finding {
    let Some((start, end)) = tls::validity(certificate) else {
        return Finding::failed(format!("{what}: it does not parse"), "write an X.509 certificate");
    };
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    let life = time(end).duration_since(time(start)).unwrap_or_default();
    let until = Timestamp::from_second(end).map(|time| time.to_string()).unwrap_or_default();
    match time(end).duration_since(SystemTime::now()) {
        Err(_) => Finding::failed(
            format!("{what}, expired at {until}"),
            "renew it; services take the new files without a restart",
        ),
        Ok(left) if left < RENEWAL.min(life / RENEWAL_PARTS) => Finding::warning(
            format!("{what}, expires at {until}"),
            "renew it, and see why that has not happened by itself",
        ),
        Ok(_) => Finding::ok(format!("{what}, until {until}")),
    }
}

/// Others must not read a private key.
#[cfg(unix)]
fn check_mode(key: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt as _;
    // A missing file is an error of another finding.
    let mode = fs::metadata(key).ok()?.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then(|| {
        Finding::failed(
            format!("every user of the machine has access to {} (mode {mode:04o})", key.display()),
            format!("chmod o= {}", key.display()),
        )
    })
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Option<Finding> {
    None
}
