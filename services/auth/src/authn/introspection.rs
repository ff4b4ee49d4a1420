//! Opaque tokens: their issuer says what they mean (RFC 7662).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_sdk::fetch::{FetchError, Fetcher};
use jsonwebtoken::get_current_timestamp;
use metrics::counter;
use moka::{Expiry, future, sync};
use reqwest::{Method, StatusCode, header::ACCEPT};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use url::{Url, form_urlencoded};

use self::admission::{Admission, Busy};
use super::{TokenError, claims::Claims};

pub(crate) use self::limits::{ClientNetwork, IntrospectionLimits};

mod admission;
mod limits;

/// How many answers and known tokens are remembered.
const ANSWERS_MAX: u64 = 10_000;
const KNOWN_MAX: u64 = 100_000;
/// For how long the answer about an active token may be relied on: its issuer may take it back at any time.
const INTROSPECTED_FOR: Duration = Duration::from_secs(30);

/// Where and how to ask about an opaque token.
#[derive(Debug)]
pub(super) struct Introspection {
    url: Url,
    fetcher: Fetcher,
    endpoint: Endpoint,
    /// Tokens that were good of late, by digest. Their questions wait for no unknown one.
    known: sync::Cache<[u8; 32], ()>,
    known_in_flight: Semaphore,
    unknown: Admission,
    /// What was answered, by digest and [`Issuers::epoch`](super::Issuers::epoch), whatever resource the token was shown
    /// for. One question about a token is on its way at a time.
    answers: future::Cache<([u8; 32], u64), Answer>,
}

/// What the issuer says of a token.
#[derive(Clone, Debug)]
enum Answer {
    /// It means this, and that may be relied on until then.
    Active(Arc<Claims>, Instant),
    Inactive,
}

/// For how long an answer is remembered.
struct Remembered {
    refused_for: Duration,
}

impl Expiry<([u8; 32], u64), Answer> for Remembered {
    fn expire_after_create(
        &self,
        _: &([u8; 32], u64),
        answer: &Answer,
        now: Instant,
    ) -> Option<Duration> {
        Some(match answer {
            Answer::Active(_, until) => until.saturating_duration_since(now),
            Answer::Inactive => self.refused_for,
        })
    }
}

/// What kind of endpoint is asked.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// RFC 7662, with the credentials of a client that may ask.
    Introspection { client_id: String, client_secret: SecretString },
    /// Google's `tokeninfo`, which knows no client and does not say `active`.
    TokenInfo,
}

impl Introspection {
    pub(super) fn new(
        url: Url,
        fetcher: Fetcher,
        endpoint: Endpoint,
        limits: IntrospectionLimits,
    ) -> Self {
        let refused_for = Duration::from_secs(limits.refused_seconds.get().into());
        let known_for = Duration::from_secs(limits.known_seconds.get().into());
        let answers = future::Cache::builder().max_capacity(ANSWERS_MAX);
        Self {
            url,
            fetcher,
            endpoint,
            known: sync::Cache::builder().max_capacity(KNOWN_MAX).time_to_live(known_for).build(),
            known_in_flight: Semaphore::new(limits.known_in_flight_max.get() as usize),
            unknown: Admission::new(limits),
            answers: answers.expire_after(Remembered { refused_for }).build(),
        }
    }

    /// What a token means that somebody of this network shows, when it is active, and until when that may be relied on.
    /// What was answered in another epoch is not.
    pub(super) async fn ask(
        &self,
        token: &str,
        network: Option<ClientNetwork>,
        epoch: u64,
    ) -> Result<(Arc<Claims>, Instant), TokenError> {
        let key = digest(token);
        let asking = self.answers.try_get_with((key, epoch), self.ask_issuer(token, key, network));
        // Boxed: it is seldom waited for, and most tokens are not opaque.
        match Box::pin(asking).await {
            Ok(Answer::Active(claims, until)) => Ok((claims, until)),
            Ok(Answer::Inactive) => Err(TokenError::Inactive),
            Err(error) => Err(TokenError::clone(&error)),
        }
    }

    /// Notes that a token is good: from now on it is known.
    pub(super) fn know(&self, token: &str) {
        self.known.insert(digest(token), ());
    }

    async fn ask_issuer(
        &self,
        token: &str,
        key: [u8; 32],
        network: Option<ClientNetwork>,
    ) -> Result<Answer, TokenError> {
        let (_known, _unknown);
        if self.known.contains_key(&key) {
            // It is never closed.
            _known = self.known_in_flight.acquire().await;
        } else {
            _unknown = self.unknown.enter(network).await.map_err(|Busy| {
                counter!("auth_introspections_refused_total").increment(1);
                TokenError::Busy
            })?;
        }
        let asked = Instant::now();
        let answer = match &self.endpoint {
            Endpoint::Introspection { client_id, client_secret } => {
                self.introspect(token, client_id, client_secret).await
            }
            Endpoint::TokenInfo => self.token_info(token).await,
        };
        counter!("auth_introspections_total").increment(1);
        match answer.map_err(|error| TokenError::Introspection(Arc::new(error)))? {
            Some(claims) => {
                let until = asked + INTROSPECTED_FOR.min(left(&claims));
                Ok(Answer::Active(Arc::new(claims), until))
            }
            None => {
                self.known.invalidate(&key);
                Ok(Answer::Inactive)
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
        // A token of another type, such as one that is bound to a key, proves nothing by being shown.
        let is_bearer =
            claims.at("token_type").is_none_or(|kind| is_text(kind, &["bearer", "access_token"]));
        Ok(Some(claims).filter(|_| is_active && is_bearer))
    }

    async fn token_info(&self, token: &str) -> Result<Option<Claims>, FetchError> {
        let request =
            self.fetcher.request(Method::POST, &self.url)?.bearer_auth(token).form(&[("", ""); 0]);
        let answer = self.fetcher.send(&self.url, request).await?;
        if answer.status == StatusCode::BAD_REQUEST {
            return Ok(None);
        }
        let mut claims: Map<String, Value> = answer.json()?;
        // Numbers are texts here.
        if let Some(exp) = claims.get_mut("exp")
            && let Some(seconds) = exp.as_str().and_then(|text| text.parse::<u64>().ok())
        {
            *exp = seconds.into();
        }
        Ok(Some(claims.into()))
    }
}

/// How long a token lasts, as far as its issuer says (RFC 7662 section 2.2).
fn left(claims: &Claims) -> Duration {
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
