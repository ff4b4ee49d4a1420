//! Introspection of opaque tokens by their issuer (RFC 7662).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_config::issuers::IntrospectionLimits;
use drawbridge_transport::fetch::{FetchError, Fetcher};
use jsonwebtoken::get_current_timestamp;
use moka::{Expiry, future, sync};
use reqwest::{Method, StatusCode, header::ACCEPT};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use url::{Url, form_urlencoded};

use self::queue::{Busy, IntrospectionQueue};
use super::{TokenError, claims::Claims};
use crate::metrics::{INTROSPECTIONS, INTROSPECTIONS_REFUSED};

pub(crate) use self::network::ClientNetwork;

mod network;
mod queue;

/// How many results and known tokens are cached.
const RESULTS_MAX: u64 = 10_000;
const KNOWN_MAX: u64 = 100_000;
/// How long the result for an active token is cached: its issuer may revoke it at any time.
const ACTIVE_FOR: Duration = Duration::from_secs(30);

/// The introspection client of an issuer.
#[derive(Debug)]
pub(super) struct Introspection {
    url: Url,
    fetcher: Fetcher,
    endpoint: Endpoint,
    limits: IntrospectionLimits,
    /// Recently valid tokens, by digest. Their requests do not queue behind those for unknown
    /// tokens.
    known: sync::Cache<[u8; 32], ()>,
    known_in_flight: Semaphore,
    unknown: IntrospectionQueue,
    /// Results by digest and [`Issuers::epoch`](super::Issuers::epoch), for all resources. At most
    /// one request per token is in flight.
    results: future::Cache<([u8; 32], u64), IntrospectionResult>,
}

/// The issuer's result for a token.
#[derive(Clone, Debug)]
enum IntrospectionResult {
    /// Active with these claims. The result expires at the instant.
    Active(Arc<Claims>, Instant),
    Inactive,
}

/// How long a result is cached.
struct ResultExpiry {
    inactive_for: Duration,
}

impl Expiry<([u8; 32], u64), IntrospectionResult> for ResultExpiry {
    fn expire_after_create(
        &self,
        _: &([u8; 32], u64),
        result: &IntrospectionResult,
        now: Instant,
    ) -> Option<Duration> {
        Some(match result {
            IntrospectionResult::Active(_, until) => until.saturating_duration_since(now),
            IntrospectionResult::Inactive => self.inactive_for,
        })
    }
}

/// The kind of endpoint.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// RFC 7662, with the credentials of an authorized client.
    Introspection { client_id: String, client_secret: SecretString },
    /// Google's `tokeninfo`, which takes no client credentials and does not return `active`.
    TokenInfo,
}

impl Endpoint {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::TokenInfo, Self::TokenInfo) => true,
            (
                Self::Introspection { client_id, client_secret },
                Self::Introspection { client_id: other_id, client_secret: other_secret },
            ) => {
                client_id == other_id
                    && client_secret.expose_secret() == other_secret.expose_secret()
            }
            _ => false,
        }
    }
}

impl Introspection {
    pub(super) fn new(
        url: Url,
        fetcher: Fetcher,
        endpoint: Endpoint,
        limits: IntrospectionLimits,
    ) -> Self {
        let inactive_for = Duration::from_secs(limits.refused_seconds.get().into());
        let known_for = Duration::from_secs(limits.known_seconds.get().into());
        let results = future::Cache::builder().max_capacity(RESULTS_MAX);
        Self {
            url,
            fetcher,
            endpoint,
            limits,
            known: sync::Cache::builder().max_capacity(KNOWN_MAX).time_to_live(known_for).build(),
            known_in_flight: Semaphore::new(limits.known_in_flight_max.get() as usize),
            unknown: IntrospectionQueue::new(limits),
            results: results.expire_after(ResultExpiry { inactive_for }).build(),
        }
    }

    /// Whether both ask the same endpoint in the same way.
    pub(super) fn has_same_settings(&self, other: &Self) -> bool {
        self.url == other.url
            && self.fetcher.scope() == other.fetcher.scope()
            && self.endpoint.is_same(&other.endpoint)
            && self.limits == other.limits
    }

    /// The claims of an active token that a client in `network` sent, and until when they may be
    /// cached. Results of other epochs are not reused.
    pub(super) async fn resolve(
        &self,
        token: &str,
        network: Option<ClientNetwork>,
        epoch: u64,
    ) -> Result<(Arc<Claims>, Instant), TokenError> {
        let key = digest(token);
        let result =
            self.results.try_get_with((key, epoch), self.request_result(token, key, network));
        // Boxed: this future is seldom awaited, and most tokens are not opaque.
        match Box::pin(result).await {
            Ok(IntrospectionResult::Active(claims, until)) => Ok((claims, until)),
            Ok(IntrospectionResult::Inactive) => Err(TokenError::Inactive),
            Err(error) => Err(TokenError::clone(&error)),
        }
    }

    /// Marks a valid token as known.
    pub(super) fn mark_known(&self, token: &str) {
        self.known.insert(digest(token), ());
    }

    async fn request_result(
        &self,
        token: &str,
        key: [u8; 32],
        network: Option<ClientNetwork>,
    ) -> Result<IntrospectionResult, TokenError> {
        let (_known, _unknown);
        if self.known.contains_key(&key) {
            // The semaphore is never closed.
            _known = self.known_in_flight.acquire().await;
        } else {
            _unknown = self.unknown.acquire(network).await.map_err(|Busy| {
                INTROSPECTIONS_REFUSED.get().increment(1);
                TokenError::Busy
            })?;
        }
        let requested_at = Instant::now();
        let claims = match &self.endpoint {
            Endpoint::Introspection { client_id, client_secret } => {
                self.introspect(token, client_id, client_secret).await
            }
            Endpoint::TokenInfo => self.token_info(token).await,
        };
        INTROSPECTIONS.get().increment(1);
        match claims.map_err(|error| TokenError::Introspection(Arc::new(error)))? {
            Some(claims) => {
                let until = requested_at + ACTIVE_FOR.min(lifetime(&claims));
                Ok(IntrospectionResult::Active(Arc::new(claims), until))
            }
            None => {
                self.known.invalidate(&key);
                Ok(IntrospectionResult::Inactive)
            }
        }
    }

    async fn introspect(
        &self,
        token: &str,
        client_id: &str,
        client_secret: &SecretString,
    ) -> Result<Option<Claims>, FetchError> {
        // RFC 6749 section 2.3.1.
        let encoded =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let request = self
            .fetcher
            .request(Method::POST, &self.url)?
            .basic_auth(encoded(client_id), Some(encoded(client_secret.expose_secret())))
            .header(ACCEPT, "application/json")
            .form(&[("token", token), ("token_type_hint", "access_token")]);
        let claims: Claims = self.fetcher.send(&self.url, request).await?.json()?;
        let is_active = claims.at("active") == Some(&Value::Bool(true));
        // A token of another type, such as one bound to a key, proves nothing when presented.
        let is_bearer =
            claims.at("token_type").is_none_or(|kind| is_text(kind, &["bearer", "access_token"]));
        Ok(Some(claims).filter(|_| is_active && is_bearer))
    }

    async fn token_info(&self, token: &str) -> Result<Option<Claims>, FetchError> {
        let request =
            self.fetcher.request(Method::POST, &self.url)?.bearer_auth(token).form(&[("", ""); 0]);
        let response = self.fetcher.send(&self.url, request).await?;
        if response.status == StatusCode::BAD_REQUEST {
            return Ok(None);
        }
        let mut claims: Map<String, Value> = response.json()?;
        // Google writes numbers as strings.
        if let Some(exp) = claims.get_mut("exp")
            && let Some(seconds) = exp.as_str().and_then(|text| text.parse::<u64>().ok())
        {
            *exp = seconds.into();
        }
        Ok(Some(claims.into()))
    }
}

/// The remaining lifetime of a token, if its issuer reports it (RFC 7662 section 2.2).
fn lifetime(claims: &Claims) -> Duration {
    let end = claims.seconds("exp").ok().flatten();
    end.map_or(Duration::MAX, |end| {
        Duration::from_secs(end.saturating_sub(get_current_timestamp()))
    })
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn is_text(value: &Value, texts: &[&str]) -> bool {
    value.as_str().is_some_and(|value| texts.iter().any(|text| value.eq_ignore_ascii_case(text)))
}
