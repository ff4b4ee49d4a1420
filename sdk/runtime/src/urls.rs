//! Parses URLs from flags and config files.

use std::{fmt, ops::Deref, str::FromStr};

use url::{Host, Url};

use crate::{SocketPath, SocketPathError};

/// A text is not a URL of an HTTP or gRPC server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseUrlError {
    /// It has no scheme.
    #[error("the scheme is missing: write `http://{text}` or `https://{text}`")]
    MissingScheme {
        /// The text.
        text: String,
    },
    /// Its scheme is not http or https.
    #[error("the scheme must be http or https, not {scheme}")]
    UnsupportedScheme {
        /// The scheme.
        scheme: String,
    },
    /// It is not a URL.
    #[error("invalid URL (expected e.g. http://127.0.0.1:7450): {0}")]
    Syntax(#[from] url::ParseError),
    /// It is an invalid Unix-domain socket.
    #[error(transparent)]
    Socket(#[from] SocketPathError),
}

/// Whether a URL leads to this host alone: a loopback address, or `localhost`.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Parses the URL of an HTTP or gRPC server from a flag.
///
/// # Errors
/// When it has no scheme, one other than `http` and `https`, or is not a URL. [`Url`] itself parses
/// `localhost:7450` as a URL with the scheme `localhost`.
pub fn parse_url(text: &str) -> Result<Url, ParseUrlError> {
    let text = text.trim();
    match text.split_once("://") {
        Some((scheme, _)) if !["http", "https"].contains(&scheme.to_lowercase().as_str()) => {
            Err(ParseUrlError::UnsupportedScheme { scheme: scheme.to_owned() })
        }
        Some(_) => Ok(text.parse()?),
        None => {
            // If it is invalid even with a scheme, that error is returned.
            let _: Url = format!("http://{text}").parse()?;
            Err(ParseUrlError::MissingScheme { text: text.to_owned() })
        }
    }
}

/// The URL of a gRPC server from a flag: as [`parse_url`] accepts it, or a Unix-domain socket as
/// `unix:/absolute/path` (gRPC's naming).
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct GrpcUrl(pub Url);

impl FromStr for GrpcUrl {
    type Err = ParseUrlError;

    fn from_str(text: &str) -> Result<Self, ParseUrlError> {
        let text = text.trim();
        if !SocketPath::has_scheme(text) {
            return parse_url(text).map(Self);
        }
        let url = Url::parse(text)?;
        SocketPath::try_from(&url)?;
        Ok(Self(url))
    }
}

impl TryFrom<String> for GrpcUrl {
    type Error = ParseUrlError;

    fn try_from(text: String) -> Result<Self, ParseUrlError> {
        text.parse()
    }
}

impl From<Url> for GrpcUrl {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl Deref for GrpcUrl {
    type Target = Url;

    fn deref(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for GrpcUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Checks a URL and returns its text unchanged, for URLs that are compared byte for byte, such as
/// an issuer.
///
/// # Errors
/// As [`parse_url`].
pub fn parse_url_string(text: &str) -> Result<String, ParseUrlError> {
    parse_url(text).map(|_| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_url_is_rejected_with_the_url_to_write() {
        for text in ["http://localhost:7450", "https://auth.internal/x", "HTTP://[::1]:7450"] {
            assert!(parse_url(text).is_ok(), "{text}");
        }
        for text in ["localhost:7450", "127.0.0.1:7450", "auth.internal", "[::1]:7450/x"] {
            let error = parse_url(text).unwrap_err();
            assert_eq!(error, ParseUrlError::MissingScheme { text: text.to_owned() });
            assert!(error.to_string().contains(&format!("write `http://{text}`")), "{error}");
        }
        for (text, error) in [
            ("redis://localhost", "the scheme must be http or https, not redis"),
            ("", "invalid URL (expected e.g. http://127.0.0.1:7450): empty host"),
            ("http://", "invalid URL (expected e.g. http://127.0.0.1:7450): empty host"),
            (
                "local host",
                "invalid URL (expected e.g. http://127.0.0.1:7450): \
                 invalid international domain name",
            ),
        ] {
            assert_eq!(parse_url(text).unwrap_err().to_string(), error, "{text}");
        }
    }
}
