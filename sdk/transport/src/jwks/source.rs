//! The sources of a key set.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use drawbridge_runtime::bounded;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{AGE, CACHE_CONTROL, ETAG, IF_NONE_MATCH},
};
use reqwest::RequestBuilder;
use serde::Deserialize;
use tokio::time::timeout;
use tonic::{body::Body, transport::Channel};
use tower::ServiceExt as _;
use url::Url;

use super::{JwksError, key::PublishedSet, private_server::PrivateServer};
use crate::fetch::{BODY_BYTES_MAX, FetchError, Fetched, Fetcher, TIMEOUT};

const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The source of a key set.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A URL.
    Url(Url, Fetcher),
    /// A URL of another service of the mesh, which the channel leads to.
    Peer(Url, Channel),
    /// The URL from an issuer's metadata, by RFC 8414 or else by OpenID Connect Discovery.
    Issuer(String, Fetcher),
    /// A URL of a server that needs more than that.
    Private(PrivateServer),
    /// A file, read again at each refresh.
    File(PathBuf),
}

/// State that is retained between fetches.
#[derive(Debug, Default)]
pub(super) struct FetchState {
    etag: Option<HeaderValue>,
    /// The URL from the issuer's metadata.
    discovered: Option<Url>,
}

pub(super) enum FetchOutcome {
    Set { keys: PublishedSet, max_age: Option<Duration> },
    NotModified { max_age: Option<Duration> },
}

/// RFC 8414 section 2, OpenID Connect Discovery 1.0 section 3.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: Url,
}

impl KeySource {
    /// Whether both lead to the same key set, by the same way. Channels are not compared.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Url(url, by), Self::Url(other, other_by)) => {
                url == other && by.scope() == other_by.scope()
            }
            (Self::Issuer(name, by), Self::Issuer(other, other_by)) => {
                name == other && by.scope() == other_by.scope()
            }
            (Self::Private(server), Self::Private(other)) => server == other,
            (Self::File(path), Self::File(other)) => path == other,
            _ => false,
        }
    }

    /// What operators know it by.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Url(url, _) | Self::Peer(url, _) => url.to_string(),
            Self::Private(server) => server.url.to_string(),
            Self::Issuer(name, _) => name.clone(),
            Self::File(path) => path.display().to_string(),
        }
    }

    pub(super) async fn fetch(&self, state: &mut FetchState) -> Result<FetchOutcome, JwksError> {
        match self {
            Self::Url(url, fetcher) => fetch(fetcher, url, state).await,
            Self::Peer(url, channel) => fetch_from_peer(channel, url, state).await,
            Self::Private(server) => {
                let (fetcher, request) = server.request().await?;
                send(&fetcher, &server.url, request, state).await
            }
            Self::Issuer(issuer, fetcher) => {
                let url = match &state.discovered {
                    Some(url) => url.clone(),
                    None => discover(fetcher, issuer).await?,
                };
                let found = fetch(fetcher, &url, state).await;
                match found {
                    Ok(_) => state.discovered = Some(url),
                    // Missing keys may have moved: the next fetch reads the metadata again.
                    Err(_) => *state = FetchState::default(),
                }
                found
            }
            Self::File(path) => {
                let failed =
                    |source| JwksError::File { path: path.clone(), source: Arc::new(source) };
                let text = bounded::read_file_async(path, FILE_BYTES_MAX).await.map_err(failed)?;
                let keys = serde_json::from_slice(&text)
                    .map_err(|error| failed(io::Error::from(error)))?;
                Ok(FetchOutcome::Set { keys, max_age: None })
            }
        }
    }
}

async fn fetch(
    fetcher: &Fetcher,
    url: &Url,
    state: &mut FetchState,
) -> Result<FetchOutcome, JwksError> {
    let request = fetcher.request(Method::GET, url)?;
    send(fetcher, url, request, state).await
}

async fn send(
    fetcher: &Fetcher,
    url: &Url,
    mut request: RequestBuilder,
    state: &mut FetchState,
) -> Result<FetchOutcome, JwksError> {
    if let Some(etag) = &state.etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    parse_response(fetcher.send(url, request).await?, state)
}

async fn fetch_from_peer(
    channel: &Channel,
    url: &Url,
    state: &mut FetchState,
) -> Result<FetchOutcome, JwksError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| JwksError::Peer {
        url: url.clone(),
        source: source.into(),
    };
    let mut request = Request::get(url.path());
    if let Some(etag) = &state.etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    let request = request.body(Body::empty()).map_err(|error| failed(error.into()))?;
    let fetching = async {
        let response =
            channel.clone().oneshot(request).await.map_err(|error| failed(error.into()))?;
        let (head, body) = response.into_parts();
        let body = bounded::read_body(body, BODY_BYTES_MAX);
        let body = body.await.map_err(|error| failed(error.into()))?;
        Ok::<_, JwksError>(Fetched::new(url.clone(), head.status, head.headers, body))
    };
    let response = timeout(TIMEOUT, fetching).await.map_err(|elapsed| failed(elapsed.into()))?;
    parse_response(response?, state)
}

fn parse_response(response: Fetched, state: &mut FetchState) -> Result<FetchOutcome, JwksError> {
    let max_age = max_age(&response.headers);
    if response.status == StatusCode::NOT_MODIFIED && state.etag.is_some() {
        return Ok(FetchOutcome::NotModified { max_age });
    }
    let etag = response.headers.get(ETAG).cloned();
    let keys = response.json()?;
    // Set only after the keys were parsed: an invalid response must be fetched again.
    state.etag = etag;
    Ok(FetchOutcome::Set { keys, max_age })
}

/// The URLs of an issuer's metadata: by RFC 8414 section 3.1, and by OpenID Connect Discovery 1.0
/// section 4. `None`: the issuer is not a URL.
#[must_use]
pub fn metadata_urls(issuer: &str) -> Option<[Url; 2]> {
    let url: Url = issuer.parse().ok()?;
    let path = url.path().trim_end_matches('/');
    let at = |path: &str| {
        let mut url = url.clone();
        url.set_path(path);
        url
    };
    Some([
        at(&format!("/.well-known/oauth-authorization-server{path}")),
        at(&format!("{path}/.well-known/openid-configuration")),
    ])
}

/// The key set's URL, from the metadata of exactly this issuer (RFC 8414 section 3.3).
async fn discover(fetcher: &Fetcher, issuer: &str) -> Result<Url, JwksError> {
    let urls = metadata_urls(issuer);
    let [oauth, openid] = urls.ok_or_else(|| JwksError::NoUrl { issuer: issuer.to_owned() })?;
    let (from, metadata): (_, Metadata) = match fetcher.json(&oauth).await {
        Ok(metadata) => (oauth, metadata),
        // A disallowed address must not be retried elsewhere.
        Err(error @ (FetchError::Scheme { .. } | FetchError::Address { .. })) => {
            return Err(error.into());
        }
        Err(_) => {
            let metadata = fetcher.json(&openid).await?;
            (openid, metadata)
        }
    };
    if metadata.issuer != issuer {
        return Err(JwksError::OtherIssuer { url: from });
    }
    Ok(metadata.jwks_uri)
}

/// The freshness of a response (RFC 9111 section 4.2). The parser of the crate `headers` compares the
/// names of directives with their case, and discards them all if the value of one is invalid.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let mut age = None;
    for directive in directives.split(',').map(|directive| directive.trim().to_ascii_lowercase()) {
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            age = seconds.trim_matches('"').parse().ok();
        }
    }
    let spent = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or(0);
    age.map(|age: u64| Duration::from_secs(age.saturating_sub(spent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_sets_how_long_keys_are_fresh() {
        for (directives, age, expected) in [
            ("max-age=60", None, Some(60)),
            ("public, Max-Age=3600, must-revalidate", None, Some(3600)),
            ("max-age=60", Some("45"), Some(15)),
            ("max-age=60", Some("90"), Some(0)),
            ("max-age=60, no-cache", None, Some(0)),
            ("no-store", None, Some(0)),
            ("max-age=-1", None, None),
            ("private", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, directives.parse().unwrap());
            if let Some(age) = age {
                headers.insert(AGE, age.parse().unwrap());
            }
            assert_eq!(
                max_age(&headers),
                expected.map(Duration::from_secs),
                "{directives} {age:?}"
            );
        }
    }
}
