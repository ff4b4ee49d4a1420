//! OAuth clients: registered and configured ones, and workloads.

use std::fmt;

use drawbridge_config::users::{ConfiguredClient, Workload};
use drawbridge_runtime::is_loopback;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use url::Url;

use crate::{grant_type::GrantType, secret, state_file::SavedClient};

const REDIRECT_URI_BYTES_MAX: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub(crate) struct ClientId(pub(crate) String);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) struct Client {
    pub(crate) id: ClientId,
    pub(crate) name: Option<String>,
    pub(crate) redirect_uris: Vec<RedirectUri>,
    pub(crate) grant_types: Vec<GrantType>,
    /// Absent for a public client.
    pub(crate) secret: Option<SecretString>,
    /// The groups of a workload.
    pub(crate) groups: Vec<String>,
    /// Whether it may get tokens for the internal resources.
    pub(crate) internal: bool,
}

impl Client {
    pub(crate) fn workload(workload: &Workload) -> Self {
        Self {
            id: ClientId(workload.client_id.to_string()),
            name: None,
            redirect_uris: Vec::new(),
            grant_types: vec![GrantType::ClientCredentials],
            secret: Some(workload.client_secret.clone()),
            groups: workload.groups.clone(),
            internal: workload.internal,
        }
    }

    /// A public client of the configuration.
    pub(crate) fn configured(client: &ConfiguredClient) -> Result<Self, RedirectUriError> {
        Ok(Self {
            id: ClientId(client.client_id.to_string()),
            name: Some(client.client_id.to_string()),
            redirect_uris: client
                .redirect_uris
                .iter()
                .map(|uri| RedirectUri::parse(uri))
                .collect::<Result<_, _>>()?,
            grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
            secret: None,
            groups: Vec::new(),
            internal: client.internal,
        })
    }

    /// The registered client as stored in a state file.
    pub(crate) fn save(&self) -> SavedClient {
        SavedClient {
            id: self.id.0.clone(),
            name: self.name.clone(),
            redirect_uris: self.redirect_uris.iter().map(|uri| uri.as_str().to_owned()).collect(),
            grant_types: self.grant_types.clone(),
            secret: self.secret.as_ref().map(|secret| secret.expose_secret().to_owned()),
        }
    }

    /// A registered client from a state file. `None` if a redirect URI is invalid.
    pub(crate) fn restore(saved: SavedClient) -> Option<Self> {
        let redirect_uris = saved.redirect_uris.iter().map(|uri| RedirectUri::parse(uri));
        Some(Self {
            id: ClientId(saved.id),
            name: saved.name,
            redirect_uris: redirect_uris.collect::<Result<_, _>>().ok()?,
            grant_types: saved.grant_types,
            secret: saved.secret.map(SecretString::from),
            groups: Vec::new(),
            internal: false,
        })
    }

    pub(crate) fn may_use(&self, grant_type: GrantType) -> bool {
        self.grant_types.contains(&grant_type)
    }

    /// Whether the client is authenticated. A public client has no secret, and must not present
    /// one.
    pub(crate) fn authenticates(&self, presented: Option<&str>) -> bool {
        match (&self.secret, presented) {
            (Some(expected), Some(presented)) => secret::matches(expected, presented),
            (None, None) => true,
            _ => false,
        }
    }

    /// The redirect URI of a request, which must be registered; the only registered one if the
    /// request has none (OAuth 2.1 section 4.1.1).
    pub(crate) fn redirect_uri(&self, requested: Option<&str>) -> Option<RedirectUri> {
        match (requested, self.redirect_uris.as_slice()) {
            (Some(requested), registered) => {
                let requested = RedirectUri::parse(requested).ok()?;
                registered.iter().any(|uri| uri.matches(&requested)).then_some(requested)
            }
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct RedirectUri {
    text: String,
    #[serde(skip)]
    url: Url,
}

/// An invalid redirect URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a redirect URI must be https, http on a loopback host, or of another scheme, without a \
     fragment"
)]
pub(crate) struct RedirectUriError;

impl RedirectUri {
    /// Parses a redirect URI. [`Self::has_scheme_of`] checks whether its scheme may be registered.
    pub(crate) fn parse(text: &str) -> Result<Self, RedirectUriError> {
        // URL parsing drops white space and control characters, but texts are compared.
        if text.len() > REDIRECT_URI_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(RedirectUriError);
        }
        let url = Url::parse(text).map_err(|_| RedirectUriError)?;
        let is_scheme_valid = match url.scheme() {
            "https" => true,
            "http" => is_loopback(&url),
            _ => true,
        };
        let has_no_credentials = url.username().is_empty() && url.password().is_none();
        // RFC 6749 section 3.1.2: no fragment.
        if is_scheme_valid && has_no_credentials && url.fragment().is_none() {
            Ok(Self { text: text.to_owned(), url })
        } else {
            Err(RedirectUriError)
        }
    }

    /// Whether its scheme is https, http, one of `schemes`, or a private-use one with a dot (RFC
    /// 8252 section 7.1).
    pub(crate) fn has_scheme_of(&self, schemes: &[String]) -> bool {
        let scheme = self.url.scheme();
        matches!(scheme, "https" | "http")
            || scheme.contains('.')
            || schemes.iter().any(|one| one == scheme)
    }

    /// Whether a request may use `requested` if this URI is registered: they must be equal, except
    /// for the port of a loopback host, which native clients choose at run time (RFC 8252 section
    /// 7.3).
    fn matches(&self, requested: &Self) -> bool {
        if self.text == requested.text {
            return true;
        }
        let (mut registered, mut requested) = (self.url.clone(), requested.url.clone());
        let is_port_ignored = registered.scheme() == "http"
            && is_loopback(&registered)
            && registered.set_port(None).is_ok()
            && requested.set_port(None).is_ok();
        is_port_ignored && registered == requested
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The destination as shown to users.
    pub(crate) fn destination(&self) -> String {
        match (self.url.scheme(), self.url.host_str(), self.url.port()) {
            ("https" | "http", Some(host), Some(port)) => format!("{host}:{port}"),
            ("https" | "http", Some(host), None) => host.to_owned(),
            (scheme, Some(host), _) => format!("{scheme}://{host}"),
            (scheme, None, _) => format!("{scheme}:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(registered: &str, requested: &str, expected: bool) {
        let registered = RedirectUri::parse(registered).unwrap();
        let outcome =
            RedirectUri::parse(requested).is_ok_and(|requested| registered.matches(&requested));
        assert_eq!(outcome, expected, "{} and {requested}", registered.as_str());
    }

    #[test]
    fn a_redirect_uri_must_match_except_for_the_port_of_a_loopback_host() {
        check("http://127.0.0.1:33418/cb", "http://127.0.0.1:33418/cb", true);
        check("http://127.0.0.1:33418/cb", "http://127.0.0.1:50000/cb", true);
        check("http://127.0.0.1/cb", "http://127.0.0.1:50000/cb", true);
        check("http://localhost/cb", "http://localhost:1/cb", true);
        check("http://[::1]/cb", "http://[::1]:1/cb", true);
        check("http://127.0.0.1/cb", "http://localhost/cb", false);
        check("http://127.0.0.1/cb", "http://127.0.0.1/other", false);
        check("http://127.0.0.1/cb", "http://127.0.0.1/cb?x=1", false);
        check("http://127.0.0.1/cb", "https://127.0.0.1/cb", false);
        check("http://127.0.0.1/cb", "http://127.0.0.1@evil.example/cb", false);
        check("https://app.example/cb", "https://app.example/cb", true);
        check("https://app.example/cb", "https://app.example:8443/cb", false);
        check("https://app.example/cb", "https://app.example/cb/", false);
        check("https://app.example/cb", "https://APP.example/cb", false);
        check("cursor://anysphere/cb", "cursor://anysphere/cb", true);
        check("cursor://anysphere/cb", "cursor://other/cb", false);
    }
}
