//! Fetches third-party documents over HTTP: bounded in time and size, without redirects, and from
//! inside the network only where the configuration allows it.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use drawbridge_runtime::bounded::{self, BodyError};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{
    Certificate, RequestBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use serde::de::DeserializeOwned;
use url::{Host, Url};

mod address;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;

/// A document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is not https.
    #[error("{url} is not https")]
    Scheme {
        /// The URL.
        url: Url,
    },
    /// The address is not public.
    #[error("{url} leads to an address that is not public, which is not allowed")]
    Address {
        /// The URL.
        url: Url,
    },
    /// The request failed.
    #[error("cannot fetch {url}")]
    Http {
        /// The URL.
        url: Url,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The response is not a success.
    #[error("{url} answered {status}")]
    Status {
        /// The URL.
        url: Url,
        /// The status.
        status: StatusCode,
    },
    /// The response is too large, or ended early.
    #[error("cannot read the response of {url}")]
    Body {
        /// The URL.
        url: Url,
        /// What went wrong.
        source: BodyError,
    },
    /// The response is not JSON of the expected type.
    #[error("cannot parse the response of {url}")]
    Malformed {
        /// The URL.
        url: Url,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Which addresses documents may be fetched from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkScope {
    /// Public addresses, by https.
    Public,
    /// Any address, including loopback and private ones, by https or http.
    Anywhere,
}

/// Fetches documents.
#[derive(Clone, Debug)]
pub struct Fetcher {
    http: reqwest::Client,
    scope: NetworkScope,
}

/// A response, whatever its status.
#[derive(Debug)]
pub struct Fetched {
    /// The URL that answered.
    pub url: Url,
    /// The HTTP status.
    pub status: StatusCode,
    /// The HTTP headers.
    pub headers: HeaderMap,
    body: Bytes,
}

impl Fetcher {
    /// A fetcher for this scope.
    ///
    /// # Errors
    /// When the platform's certificates cannot be read.
    pub fn new(scope: NetworkScope) -> Result<Self, reqwest::Error> {
        Self::with_authorities(scope, None)
    }

    /// As [`Self::new`], for servers whose certificate is signed by one of these authorities, in
    /// PEM, and by no other.
    ///
    /// # Errors
    /// When they are not certificates in PEM.
    pub fn trusting(scope: NetworkScope, authorities: &[u8]) -> Result<Self, reqwest::Error> {
        Self::with_authorities(scope, Some(Certificate::from_pem_bundle(authorities)?))
    }

    fn with_authorities(
        scope: NetworkScope,
        authorities: Option<Vec<Certificate>>,
    ) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            // A proxy would resolve the address itself.
            .no_proxy();
        if let Some(authorities) = authorities {
            builder = builder.tls_certs_only(authorities);
        }
        let http = match scope {
            NetworkScope::Public => builder.dns_resolver(PublicResolver).build()?,
            NetworkScope::Anywhere => builder.build()?,
        };
        Ok(Self { http, scope })
    }

    /// Which addresses it fetches from.
    #[must_use]
    pub fn scope(&self) -> NetworkScope {
        self.scope
    }

    /// A request to `url`, if the scope allows it.
    ///
    /// # Errors
    /// [`FetchError::Scheme`] and [`FetchError::Address`].
    pub fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, FetchError> {
        if self.scope == NetworkScope::Public {
            if url.scheme() != "https" {
                return Err(FetchError::Scheme { url: url.clone() });
            }
            // An address in the URL itself is not resolved.
            let address = match url.host() {
                Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
                Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
                _ => None,
            };
            if address.is_some_and(|address| !address::is_public(address)) {
                return Err(FetchError::Address { url: url.clone() });
            }
        }
        Ok(self.http.request(method, url.clone()))
    }

    /// Sends a request that [`Self::request`] has created, and reads the response.
    ///
    /// # Errors
    /// When there is no response in time, it is too large, or its address is not allowed.
    pub async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Fetched, FetchError> {
        self.send_within(url, request, BODY_BYTES_MAX).await
    }

    /// As [`Self::send`], for a response of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_within(
        &self,
        url: &Url,
        request: RequestBuilder,
        bytes_max: usize,
    ) -> Result<Fetched, FetchError> {
        let failed = |source: reqwest::Error| match is_refused_address(&source) {
            true => FetchError::Address { url: url.clone() },
            false => FetchError::Http { url: url.clone(), source: source.without_url() },
        };
        let response = http::Response::from(request.send().await.map_err(failed)?);
        let (head, body) = response.into_parts();
        let body = bounded::read_body(body, bytes_max).await;
        let body = body.map_err(|source| FetchError::Body { url: url.clone(), source })?;
        Ok(Fetched::new(url.clone(), head.status, head.headers, body))
    }

    /// Fetches a JSON document.
    ///
    /// # Errors
    /// When the request fails, or the document is too large or not of the expected type.
    pub async fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<T, FetchError> {
        self.send(url, self.request(Method::GET, url)?).await?.json()
    }
}

impl Fetched {
    /// A response that was received by other means.
    pub(crate) fn new(url: Url, status: StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        Self { url, status, headers, body }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body alone.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        self.body
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Parses the body of a success.
    ///
    /// # Errors
    /// When it is not a success, or not JSON of the expected type.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, FetchError> {
        if self.status != StatusCode::OK {
            return Err(FetchError::Status { url: self.url, status: self.status });
        }
        serde_json::from_slice(&self.body)
            .map_err(|source| FetchError::Malformed { url: self.url, source })
    }
}

/// Resolves names to public addresses only. The connection uses the addresses that were checked, so
/// DNS rebinding between check and use is impossible.
#[derive(Debug)]
struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One private address among public ones is enough to reject the name.
            if found.iter().any(|address| !address::is_public(address.ip())) {
                return Err(RefusedAddress.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[derive(Debug)]
struct RefusedAddress;

impl fmt::Display for RefusedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name resolves to an address that is not public")
    }
}

impl std::error::Error for RefusedAddress {}

fn is_refused_address(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<RefusedAddress>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use axum::{Router, http::header, response::Redirect, routing::get};

    use super::*;

    async fn serve(routes: Router) -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url.parse().unwrap()
    }

    async fn fetch(scope: NetworkScope, url: &str) -> Result<serde_json::Value, FetchError> {
        Fetcher::new(scope).unwrap().json(&url.parse().unwrap()).await
    }

    #[tokio::test]
    async fn an_address_that_is_not_public_is_rejected_in_every_notation() {
        for url in [
            "https://127.0.0.1:1/",
            "https://127.1:1/",
            "https://0x7f000001:1/",
            "https://2130706433:1/",
            "https://169.254.169.254/latest/meta-data",
            "https://10.0.0.1/",
            "https://[::1]:1/",
            "https://[::ffff:127.0.0.1]:1/",
            "https://[64:ff9b::7f00:1]:1/",
            // Resolves to loopback.
            "https://localhost:1/",
        ] {
            let refused = fetch(NetworkScope::Public, url).await.unwrap_err();
            assert!(matches!(refused, FetchError::Address { .. }), "{url}: {refused:?}");
        }
        let refused = fetch(NetworkScope::Public, "http://example.com/").await.unwrap_err();
        assert!(matches!(refused, FetchError::Scheme { .. }), "{refused:?}");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let reached = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&reached);
        let inside = serve(Router::new().route(
            "/",
            get(async move || {
                count.fetch_add(1, Ordering::SeqCst);
                "{}"
            }),
        ));
        let inside = inside.await;
        let outside = serve(
            Router::new().route("/", get(async move || Redirect::temporary(inside.as_str()))),
        );
        let refused = fetch(NetworkScope::Anywhere, outside.await.as_str()).await.unwrap_err();
        assert!(matches!(refused, FetchError::Status { .. }), "{refused:?}");
        assert_eq!(reached.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_document_has_a_limited_size_and_must_be_json() {
        let routes = Router::new()
            .route("/large", get(async || format!("[{}]", " ".repeat(BODY_BYTES_MAX))))
            .route("/html", get(async || ([(header::CONTENT_TYPE, "text/html")], "<html>")))
            .route("/good", get(async || r#"{"a":1}"#));
        let url = serve(routes).await;
        let at = |path: &str| url.join(path).unwrap().to_string();
        let too_large = fetch(NetworkScope::Anywhere, &at("large")).await.unwrap_err();
        let too_large = drawbridge_runtime::error_chain(&too_large);
        assert!(too_large.contains("more than 262144 bytes"), "{too_large}");
        let malformed = fetch(NetworkScope::Anywhere, &at("html")).await.unwrap_err();
        assert!(matches!(malformed, FetchError::Malformed { .. }), "{malformed:?}");
        assert_eq!(fetch(NetworkScope::Anywhere, &at("good")).await.unwrap()["a"], 1);
    }
}
