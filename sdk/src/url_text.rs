//! URLs as operators write them.

use std::{fmt, ops::Deref, str::FromStr};

use url::Url;

use crate::{SocketPath, SocketPathError};

/// A text is no URL of an HTTP or gRPC server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlTextError {
    /// It begins with a host.
    #[error("the scheme is missing: write `http://{text}` or `https://{text}`")]
    NoScheme {
        /// What was given.
        text: String,
    },
    /// It has another scheme.
    #[error("the scheme must be http or https, not {scheme}")]
    Scheme {
        /// That scheme.
        scheme: String,
    },
    /// It is none.
    #[error("this is not a URL such as `http://127.0.0.1:7450`: {0}")]
    Form(#[from] url::ParseError),
    /// It is meant to be a Unix-domain socket.
    #[error(transparent)]
    Socket(#[from] SocketPathError),
}

/// Parses the URL of an HTTP or gRPC server, as an operator gives it in a flag.
///
/// # Errors
/// When it has no scheme, another than `http` and `https`, or is no URL. To [`Url`] itself
/// `localhost:7450` is one, of the scheme `localhost`.
pub fn parse_url(text: &str) -> Result<Url, UrlTextError> {
    let text = text.trim();
    match text.split_once("://") {
        Some((scheme, _)) if !["http", "https"].contains(&scheme.to_lowercase().as_str()) => {
            Err(UrlTextError::Scheme { scheme: scheme.to_owned() })
        }
        Some(_) => Ok(text.parse()?),
        None => {
            // What is no URL with a scheme either is not worth the advice.
            let _: Url = format!("http://{text}").parse()?;
            Err(UrlTextError::NoScheme { text: text.to_owned() })
        }
    }
}

/// Where a gRPC server is, as an operator gives it: as [`parse_url`] takes it, or a Unix-domain socket by
/// `unix:/absolute/path` (gRPC's naming).
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct GrpcUrl(pub Url);

impl FromStr for GrpcUrl {
    type Err = UrlTextError;

    fn from_str(text: &str) -> Result<Self, UrlTextError> {
        let text = text.trim();
        if !SocketPath::is_meant_by(text) {
            return parse_url(text).map(Self);
        }
        let url = Url::parse(text)?;
        SocketPath::try_from(&url)?;
        Ok(Self(url))
    }
}

impl TryFrom<String> for GrpcUrl {
    type Error = UrlTextError;

    fn try_from(text: String) -> Result<Self, UrlTextError> {
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

/// The same for a URL that is compared to the letter, such as an issuer.
///
/// # Errors
/// As [`parse_url`].
pub fn url_text(text: &str) -> Result<String, UrlTextError> {
    parse_url(text).map(|_| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_lacks_is_said_with_what_to_write() {
        for text in ["http://localhost:7450", "https://auth.internal/x", "HTTP://[::1]:7450"] {
            assert!(parse_url(text).is_ok(), "{text}");
        }
        for text in ["localhost:7450", "127.0.0.1:7450", "auth.internal", "[::1]:7450/x"] {
            let error = parse_url(text).unwrap_err();
            assert_eq!(error, UrlTextError::NoScheme { text: text.to_owned() });
            assert!(error.to_string().contains(&format!("write `http://{text}`")), "{error}");
        }
        for (text, error) in [
            ("redis://localhost", "the scheme must be http or https, not redis"),
            ("", "this is not a URL such as `http://127.0.0.1:7450`: empty host"),
            ("http://", "this is not a URL such as `http://127.0.0.1:7450`: empty host"),
            (
                "local host",
                "this is not a URL such as `http://127.0.0.1:7450`: invalid international domain name",
            ),
        ] {
            assert_eq!(parse_url(text).unwrap_err().to_string(), error, "{text}");
        }
    }
}
