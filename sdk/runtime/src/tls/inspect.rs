//! What an operator checks of certificates.

use std::net::IpAddr;

use tokio_rustls::rustls::{
    Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{CertificateError, KeyPairFiles};

/// A certificate (X.509, DER).
pub type Certificate = CertificateDer<'static>;

/// Checks that these files are a certificate with its key, which has not expired.
///
/// # Errors
/// When they are not.
pub fn check_key_pair(files: &KeyPairFiles) -> Result<(), CertificateError> {
    files.load(&files.read()?, &aws_lc_rs::default_provider()).map(drop)
}

/// Checks that the first certificate of `chain` was issued by one of `authorities`, by way of the
/// others, and that each of them is valid now.
///
/// # Errors
/// When an authority is invalid, or none of them leads to the certificate.
pub fn verify_chain(chain: &[Certificate], authorities: &[Certificate]) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Error::NoCertificatesPresented);
    };
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        &roots,
        intermediates,
        UnixTime::now(),
        aws_lc_rs::default_provider().signature_verification_algorithms.all,
    )
}

/// From when to when a certificate is valid, in seconds since 1970. `None`: it does not parse.
#[must_use]
pub fn validity(certificate: &Certificate) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// The host names, addresses and URIs in a certificate's subject alternative name.
#[must_use]
pub fn names(certificate: &Certificate) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = match *bytes {
                [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d])),
                bytes => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            };
            address.map(|address| address.to_string())
        }
        _ => None,
    };
    names.iter().filter_map(text).collect()
}
