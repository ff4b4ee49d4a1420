//! Where policies come from.

use std::{fmt, path::PathBuf, str::FromStr};

use drawbridge_runtime::is_loopback;
use url::Url;

/// Where policies come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyLocation {
    /// A folder of files.
    Folder(PathBuf),
    /// A signed bundle at a server.
    Bundle(BundleLocation),
}

/// Where a signed bundle is.
#[derive(Clone, PartialEq, Eq)]
pub enum BundleLocation {
    /// At an HTTP server. Its signature is at the same path with `.sig` appended.
    Http(Url),
    /// In an OCI registry.
    Registry(OciReference),
}

/// A tag in an OCI registry: `oci://REGISTRY/REPOSITORY:TAG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciReference {
    /// The URL of the registry, without a path.
    pub(super) registry: Url,
    pub(super) repository: String,
    pub(super) tag: String,
}

/// A text does not name a place of policies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Its scheme is unknown.
    #[error(
        "policies come from a folder, https:// or oci://, not {0}:// (an object of S3 or another \
         store has an https URL, too)"
    )]
    Scheme(String),
    /// It is not a URL.
    #[error("invalid URL (expected e.g. https://policies.acme.internal/production.tar.gz): {0}")]
    Url(#[from] url::ParseError),
    /// It is unencrypted.
    #[error("http is for loopback only, in development; write https://")]
    Plaintext,
    /// It contains credentials.
    #[error("credentials do not belong into a URL; put them into the file of --policy-credentials")]
    Credentials,
    /// It is not a tag of a registry.
    #[error("invalid tag of a registry (expected e.g. oci://ghcr.io/acme/policies:production)")]
    Reference,
    /// A bundle is needed.
    #[error("{0} is not a URL; write https://… or oci://…")]
    NotAUrl(String),
}

impl FromStr for PolicyLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        match text.contains("://") {
            true => text.parse().map(Self::Bundle),
            false => Ok(Self::Folder(text.into())),
        }
    }
}

impl From<PathBuf> for PolicyLocation {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl FromStr for BundleLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        match text.split_once("://") {
            Some(("oci", rest)) => rest.parse().map(Self::Registry),
            Some(("http" | "https", _)) => {
                let url = text.parse()?;
                check_url(&url)?;
                Ok(Self::Http(url))
            }
            Some((scheme, _)) => Err(LocationError::Scheme(scheme.to_owned())),
            None => Err(LocationError::NotAUrl(text.to_owned())),
        }
    }
}

fn check_url(url: &Url) -> Result<(), LocationError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LocationError::Credentials);
    }
    if url.scheme() == "http" && !is_loopback(url) {
        return Err(LocationError::Plaintext);
    }
    Ok(())
}

impl BundleLocation {
    /// The URL of its server.
    pub(super) fn server(&self) -> &Url {
        match self {
            Self::Http(url) => url,
            Self::Registry(reference) => &reference.registry,
        }
    }
}

impl FromStr for OciReference {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let invalid = LocationError::Reference;
        let (registry, rest) = text.split_once('/').ok_or(invalid.clone())?;
        let (repository, tag) = rest.rsplit_once(':').ok_or(invalid.clone())?;
        if !is_repository(repository) || !is_tag(tag) {
            return Err(invalid);
        }
        let mut url: Url = format!("https://{registry}").parse()?;
        if is_loopback(&url) {
            // As other tools treat a registry on loopback.
            url = format!("http://{registry}").parse()?;
        }
        check_url(&url)?;
        Ok(Self { registry: url, repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

/// Distribution specification, "Pulling manifests": `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by
/// slashes.
fn is_repository(name: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().copied().is_some_and(is_alphanumeric)
            && bytes.last().copied().is_some_and(is_alphanumeric)
            && bytes.iter().all(|byte| is_alphanumeric(*byte) || b"._-".contains(byte))
            && !part.contains("..")
    };
    name.len() <= 255 && name.split('/').all(is_part)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(tag: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.as_bytes().first().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(&byte) || b".-".contains(&byte))
}

impl fmt::Display for PolicyLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(formatter),
            Self::Bundle(location) => location.fmt(formatter),
        }
    }
}

impl fmt::Display for BundleLocation {
    /// Without a query, which may be a secret of a presigned URL.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => {
                let mut url = url.clone();
                url.set_query(None);
                url.set_fragment(None);
                url.fmt(formatter)
            }
            Self::Registry(reference) => reference.fmt(formatter),
        }
    }
}

impl fmt::Debug for BundleLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, tag } = self;
        write!(formatter, "oci://{}/{repository}:{tag}", registry.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_folder_or_an_encrypted_url_without_secrets() {
        let check = |text: &str, wanted: Result<&str, &str>| {
            let parsed = text.parse::<PolicyLocation>();
            match (parsed, wanted) {
                (Ok(location), Ok(wanted)) => assert_eq!(location.to_string(), wanted),
                (Err(error), Err(wanted)) => {
                    assert!(error.to_string().contains(wanted), "{text}: {error}");
                }
                (parsed, _) => panic!("{text}: {parsed:?}"),
            }
        };
        check("policies", Ok("policies"));
        check("/etc/drawbridge/policies", Ok("/etc/drawbridge/policies"));
        check("https://a.example/p.tar.gz?sig=secret", Ok("https://a.example/p.tar.gz"));
        check("http://127.0.0.1:8080/p.tar.gz", Ok("http://127.0.0.1:8080/p.tar.gz"));
        check("http://a.example/p.tar.gz", Err("write https://"));
        check("https://me:secret@a.example/p", Err("--policy-credentials"));
        check("s3://bucket/p.tar.gz", Err("not s3://"));
        check("https://", Err("invalid URL"));
        check("oci://ghcr.io/acme/policies:prod", Ok("oci://ghcr.io/acme/policies:prod"));
        check("oci://localhost:5000/a:1", Ok("oci://localhost:5000/a:1"));
        let presigned: PolicyLocation = "https://a.example/p?sig=secret".parse().unwrap();
        assert_eq!(format!("{presigned:?}"), "Bundle(https://a.example/p)");
        let local: OciReference = "localhost:5000/a:1".parse().unwrap();
        assert_eq!(local.registry.as_str(), "http://localhost:5000/");
        for text in [
            "oci://ghcr.io/acme/policies",
            "oci://ghcr.io",
            "oci://ghcr.io/Acme/policies:a",
            "oci://ghcr.io/acme/../policies:a",
            "oci://ghcr.io/acme//policies:a",
            "oci://ghcr.io/acme/policies:-a",
            "oci://ghcr.io/acme/policies@sha256:abc",
        ] {
            check(text, Err("invalid tag of a registry"));
        }
        assert!("policies".parse::<BundleLocation>().is_err());
    }
}
