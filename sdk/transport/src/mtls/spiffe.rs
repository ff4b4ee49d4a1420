use std::{fmt, str::FromStr};

use serde::Deserialize;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The longest id, and the longest trust domain in it, in bytes (SPIFFE-ID section 2.3).
const ID_BYTES_MAX: usize = 2048;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// The name of a service in its certificate: `spiffe://trust-domain/path` (SPIFFE-ID section 2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct SpiffeId(String);

/// A text is not the SPIFFE id of a service.
#[derive(Clone, Debug, thiserror::Error)]
#[error("invalid SPIFFE id {0:?} (expected e.g. spiffe://acme.example/edge)")]
pub struct SpiffeIdError(String);

/// A certificate is not that of a service (X509-SVID sections 2 to 5).
#[derive(Clone, Debug, thiserror::Error)]
pub enum SvidError {
    /// It does not parse.
    #[error("the certificate does not parse")]
    Form,
    /// It has no URI among its names, or more than one.
    #[error("the certificate must have exactly one URI as a name, but has {0}")]
    Uris(usize),
    /// That URI is not a SPIFFE id.
    #[error(transparent)]
    Id(#[from] SpiffeIdError),
    /// It may sign others, or may not sign a handshake.
    #[error("the key usage of the certificate is not that of a service")]
    Usage,
}

impl SpiffeId {
    /// The id in the leaf of a chain.
    ///
    /// # Errors
    /// When it is not the certificate of a service.
    pub(super) fn of(leaf: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| SvidError::Form)?;
        let usage = leaf.key_usage().map_err(|_| SvidError::Form)?;
        let wrong = usage.is_some_and(|usage| {
            !usage.value.digital_signature()
                || usage.value.key_cert_sign()
                || usage.value.crl_sign()
        });
        if wrong || leaf.is_ca() {
            return Err(SvidError::Usage);
        }
        let names = leaf.subject_alternative_name().map_err(|_| SvidError::Form)?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<_> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris[..] {
            [uri] => Ok(uri.parse()?),
            _ => Err(SvidError::Uris(uris.len())),
        }
    }

    /// The id of a sibling service: the same but for its last segment.
    #[must_use]
    pub fn sibling(&self, service: &str) -> Self {
        let folder = self.0.rsplit_once('/').map_or(self.0.as_str(), |(folder, _)| folder);
        Self(format!("{folder}/{service}"))
    }

    /// The id with this path in the same trust domain.
    ///
    /// # Errors
    /// When the path is not that of a service.
    pub fn in_trust_domain(&self, path: &str) -> Result<Self, SpiffeIdError> {
        let scheme = "spiffe://".len();
        let end = self.0[scheme..].find('/').map_or(self.0.len(), |at| scheme + at);
        format!("{}/{path}", &self.0[..end]).parse()
    }

    /// The id as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_of = |text: &str, also: fn(&u8) -> bool| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || b"-._".contains(&byte) || also(&byte))
        };
        let parts = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
        let good = text.len() <= ID_BYTES_MAX
            && parts.is_some_and(|(trust_domain, path)| {
                trust_domain.len() <= TRUST_DOMAIN_BYTES_MAX
                    && is_of(trust_domain, u8::is_ascii_lowercase)
                    && path.split('/').all(|segment| {
                        is_of(segment, u8::is_ascii_alphabetic) && !matches!(segment, "." | "..")
                    })
            });
        if good { Ok(Self(text.to_owned())) } else { Err(SpiffeIdError(text.to_owned())) }
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_parsed_by_the_rules_of_spiffe() {
        for good in [
            "spiffe://acme.example/edge",
            "spiffe://a-1_b/ns/Mesh/sa/tool_1.x",
            "spiffe://10.0.0.1/a",
        ] {
            assert_eq!(good.parse::<SpiffeId>().unwrap().as_str(), good);
        }
        let long = format!("spiffe://acme/{}", "a".repeat(ID_BYTES_MAX));
        let long_domain = format!("spiffe://{}/a", "a".repeat(TRUST_DOMAIN_BYTES_MAX + 1));
        for bad in [
            "",
            "edge",
            "https://acme.example/edge",
            "SPIFFE://acme.example/edge",
            "spiffe://acme.example",
            "spiffe://acme.example/",
            "spiffe://acme.example/edge/",
            "spiffe://acme.example//edge",
            "spiffe://acme.example/./edge",
            "spiffe://acme.example/../edge",
            "spiffe:///edge",
            "spiffe://Acme.example/edge",
            "spiffe://acme.example:443/edge",
            "spiffe://user@acme.example/edge",
            "spiffe://acme.example/edge?a=b",
            "spiffe://acme.example/edge#a",
            "spiffe://acme.example/ed%67e",
            "spiffe://acme.example/édge",
            " spiffe://acme.example/edge",
            "spiffe://acme.example/edge\n",
            &long,
            &long_domain,
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_in_the_same_trust_domain_has_another_path() {
        let edge: SpiffeId = "spiffe://acme.example/ns/mesh/sa/edge".parse().unwrap();
        let code = edge.in_trust_domain("ns/tools/sa/code").unwrap();
        assert_eq!(code.as_str(), "spiffe://acme.example/ns/tools/sa/code");
        for path in ["", "ns//sa/code", "ns/tools/sa/..", "ns/tools/sa/code?a"] {
            assert!(edge.in_trust_domain(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_sibling_id_differs_in_the_last_segment() {
        let sibling = |id: &str| id.parse::<SpiffeId>().unwrap().sibling("auth").to_string();
        assert_eq!(sibling("spiffe://acme.example/edge"), "spiffe://acme.example/auth");
        assert_eq!(
            sibling("spiffe://acme.example/ns/mesh/sa/edge"),
            "spiffe://acme.example/ns/mesh/sa/auth"
        );
    }
}
