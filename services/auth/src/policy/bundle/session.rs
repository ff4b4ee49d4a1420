//! Requests to the servers of bundles: bounded, encrypted, and with credentials for the server that
//! they are meant for.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use drawbridge_runtime::{bounded, is_loopback};
use drawbridge_transport::fetch::{FetchError, Fetched, Fetcher, NetworkScope};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

/// How long one request may take, with a bundle of the largest size.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 3;
/// The media types of a bundle and of its signature.
pub(super) const BUNDLE_TYPE: &str = "application/vnd.drawbridge.policies.v1.tar+gzip";
pub(super) const NOTE_TYPE: &str = "application/vnd.drawbridge.policies.signature.v1+note";
/// The largest response whose content is of no interest.
pub(super) const ANSWER_BYTES_MAX: usize = 256 * 1024;
const CREDENTIALS_BYTES_MAX: u64 = 64 * 1024;

/// A server of bundles does not give or take one.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The request failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The address is not public.
    #[error(
        "{url} is not a public https address; allow private ones with \
         --policy-allow-private-addresses"
    )]
    Private {
        /// The URL.
        url: Url,
    },
    /// The server leads to an unencrypted one.
    #[error("{url} is not https")]
    Plaintext {
        /// The URL.
        url: Url,
    },
    /// The server answered with an error.
    #[error("{url} answered {status}{hint}")]
    Status {
        /// The URL.
        url: Url,
        /// The status.
        status: StatusCode,
        /// What to do about it.
        hint: &'static str,
    },
    /// The server leads from one URL to the next.
    #[error("{url} redirects too often, or to no URL")]
    Redirect {
        /// The URL.
        url: Url,
    },
    /// The server's answer has another form.
    #[error("{url}: {problem}")]
    Response {
        /// The URL.
        url: Url,
        /// What is wrong.
        problem: String,
    },
    /// The credentials cannot be used.
    #[error("cannot use the credentials in {path:?}: {problem}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

/// Options of requests to a server of bundles.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RemoteConfig {
    /// A file with the credentials for the server of the bundle: `USER:PASSWORD`, or a bearer
    /// token. It is read for each request.
    #[arg(long, value_name = "FILE", help_heading = "Policy bundles")]
    pub policy_credentials: Option<PathBuf>,

    /// Allow a server at a private address. One on loopback is always allowed.
    #[arg(long, help_heading = "Policy bundles")]
    pub policy_allow_private_addresses: bool,
}

/// What opens a server.
pub(super) enum Credentials {
    Basic(SecretString),
    Bearer(SecretString),
}

impl Credentials {
    /// The value of the header `Authorization`.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let value = match self {
            Self::Basic(user) => format!("Basic {}", BASE64_STANDARD.encode(user.expose_secret())),
            Self::Bearer(token) => format!("Bearer {}", token.expose_secret()),
        };
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// One request.
pub(super) struct Exchange<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    /// For the server of `url` alone.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) body: Vec<u8>,
    /// The largest response.
    pub(super) bytes_max: usize,
}

impl<'a> Exchange<'a> {
    pub(super) fn get(url: &'a Url, bytes_max: usize) -> Self {
        Self::new(Method::GET, url, bytes_max)
    }

    pub(super) fn new(method: Method, url: &'a Url, bytes_max: usize) -> Self {
        let headers = HeaderMap::new();
        Self { method, url, headers, authorization: None, body: Vec::new(), bytes_max }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        if let Ok(value) = value.try_into() {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn body(mut self, media_type: &'static str, body: &[u8]) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = body.to_vec();
        self
    }
}

/// A client of one server of bundles.
#[derive(Clone, Debug)]
pub(super) struct Session {
    fetcher: Fetcher,
    credentials: Option<PathBuf>,
}

impl Session {
    /// A client of `server`, to which and from which private addresses are allowed if it is on
    /// loopback or the config allows them.
    pub(super) fn new(server: &Url, config: &RemoteConfig) -> Result<Self, RemoteError> {
        let scope = match is_loopback(server) || config.policy_allow_private_addresses {
            true => NetworkScope::Anywhere,
            false => NetworkScope::Public,
        };
        let fetcher = Fetcher::new(scope).map_err(RemoteError::Client)?;
        Ok(Self { fetcher, credentials: config.policy_credentials.clone() })
    }

    /// The credentials of the file, as it is now.
    pub(super) async fn credentials(&self) -> Result<Option<Credentials>, RemoteError> {
        let Some(path) = &self.credentials else { return Ok(None) };
        let failed = |problem: String| RemoteError::Credentials { path: path.clone(), problem };
        let read = bounded::read_file_async(path, CREDENTIALS_BYTES_MAX).await;
        let text = String::from_utf8(read.map_err(|error| failed(error.to_string()))?);
        let text: SecretString = text.map_err(|_| failed("it is not UTF-8".to_owned()))?.into();
        let secret = text.expose_secret().trim();
        let credentials = match secret.contains(':') {
            true => Credentials::Basic(secret.into()),
            false => Credentials::Bearer(secret.into()),
        };
        if secret.is_empty() || credentials.header().is_none() {
            return Err(failed(
                "it must have one line, USER:PASSWORD or a bearer token".to_owned(),
            ));
        }
        Ok(Some(credentials))
    }

    /// Sends a request and returns the response, whatever its status. The response to a GET may be
    /// elsewhere: registries store blobs at other servers, which get no credentials.
    pub(super) async fn send(&self, exchange: &Exchange<'_>) -> Result<Fetched, RemoteError> {
        let mut url = exchange.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            if url.scheme() != "https" && !(is_loopback(&url) && is_loopback(exchange.url)) {
                return Err(RemoteError::Plaintext { url: shown(&url) });
            }
            let response = self.send_once(exchange, &url).await?;
            if !response.status.is_redirection() || exchange.method != Method::GET {
                return Ok(response);
            }
            if response.status == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let location = response.headers.get(header::LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.ok_or_else(|| RemoteError::Redirect { url: shown(&url) })?;
        }
        Err(RemoteError::Redirect { url: shown(exchange.url) })
    }

    async fn send_once(&self, exchange: &Exchange<'_>, url: &Url) -> Result<Fetched, RemoteError> {
        // INVARIANT: credentials leave for the server that they are meant for alone.
        let is_own = url.origin() == exchange.url.origin();
        let failed = |error: FetchError| match error {
            FetchError::Scheme { .. } | FetchError::Address { .. } => {
                RemoteError::Private { url: shown(url) }
            }
            FetchError::Http { source, .. } => FetchError::Http { url: shown(url), source }.into(),
            FetchError::Body { source, .. } => FetchError::Body { url: shown(url), source }.into(),
            error => error.into(),
        };
        let request = self.fetcher.request(exchange.method.clone(), url).map_err(failed)?;
        let mut request = request.timeout(REQUEST_TIMEOUT).headers(exchange.headers.clone());
        if let Some(authorization) = exchange.authorization.as_ref().filter(|_| is_own) {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        if exchange.method != Method::GET {
            request = request.body(exchange.body.clone());
        }
        self.fetcher.send_within(url, request, exchange.bytes_max).await.map_err(failed)
    }
}

/// Checks that a response has this status.
pub(super) fn expect(
    response: Fetched,
    url: &Url,
    wanted: impl Fn(StatusCode) -> bool,
) -> Result<Fetched, RemoteError> {
    let status = response.status;
    if wanted(status) {
        return Ok(response);
    }
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; are the credentials in the file of --policy-credentials right?"
        }
        StatusCode::NOT_FOUND => "; has a bundle been pushed there?",
        _ => "",
    };
    Err(RemoteError::Status { url: shown(url), status, hint })
}

/// A URL without its query, which may be a secret.
pub(super) fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}

#[cfg(test)]
mod tests;
