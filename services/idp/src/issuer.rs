//! The issuer identifier.

use std::net::SocketAddr;

use url::Url;

use crate::StartError;

/// The issuer identifier: an origin without a trailing slash. Clients compare it as text.
pub(crate) struct Issuer {
    text: String,
    host: String,
}

impl Issuer {
    /// The configured issuer, or the bound address as local clients see it.
    pub(crate) fn new(configured: Option<&Url>, bound: SocketAddr) -> Result<Self, StartError> {
        let Some(url) = configured else {
            let mut local = bound;
            if bound.ip().is_unspecified() {
                local.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            return Ok(Self { text: format!("http://{local}"), host: local.ip().to_string() });
        };
        let is_origin = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        match url.host_str() {
            Some(host) if is_origin => Ok(Self {
                text: url.as_str().trim_end_matches('/').to_owned(),
                host: host.to_owned(),
            }),
            _ => Err(StartError::Issuer { issuer: url.clone() }),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}
