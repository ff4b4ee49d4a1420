//! Opaque tokens: their issuer says what they mean (RFC 7662).

use std::{sync::Arc, time::Duration};

use drawbridge_sdk::fetch::{FetchError, Fetcher};
use moka::sync::Cache;
use reqwest::{Method, StatusCode, header::ACCEPT};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use url::{Url, form_urlencoded};

use super::{TokenError, claims::Claims};

/// Questions that may be on their way at a time: whoever makes tokens up does not make a flood of them.
const AT_ONCE_MAX: usize = 32;
/// How many refused tokens are remembered, and for how long.
const REFUSED_MAX: u64 = 10_000;
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Where and how to ask about an opaque token.
#[derive(Debug)]
pub(super) struct Introspection {
    url: Url,
    fetcher: Fetcher,
    endpoint: Endpoint,
    at_once: Semaphore,
    refused: Cache<[u8; 32], ()>,
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
    pub(super) fn new(url: Url, fetcher: Fetcher, endpoint: Endpoint) -> Self {
        let refused = Cache::builder().max_capacity(REFUSED_MAX).time_to_live(REFUSED_FOR).build();
        Self { url, fetcher, endpoint, at_once: Semaphore::new(AT_ONCE_MAX), refused }
    }

    /// What a token means, when it is active.
    pub(super) async fn ask(&self, token: &str) -> Result<Claims, TokenError> {
        let key = Sha256::digest(token).into();
        if self.refused.contains_key(&key) {
            return Err(TokenError::Inactive);
        }
        // It is never closed.
        let _permit = self.at_once.acquire().await;
        let answer = match &self.endpoint {
            Endpoint::Introspection { client_id, client_secret } => {
                self.introspect(token, client_id, client_secret).await
            }
            Endpoint::TokenInfo => self.token_info(token).await,
        };
        let claims = answer.map_err(|error| TokenError::Introspection(Arc::new(error)))?;
        claims.ok_or_else(|| {
            self.refused.insert(key, ());
            TokenError::Inactive
        })
    }

    async fn introspect(
        &self,
        token: &str,
        client_id: &str,
        client_secret: &SecretString,
    ) -> Result<Option<Claims>, FetchError> {
        // RFC 6749 section 2.3.1.
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let request = self
            .fetcher
            .request(Method::POST, &self.url)?
            .basic_auth(encoded(client_id), Some(encoded(client_secret.expose_secret())))
            .header(ACCEPT, "application/json")
            .form(&[("token", token), ("token_type_hint", "access_token")]);
        let claims: Claims = self.fetcher.send(&self.url, request).await?.json()?;
        let is_active = claims.at("active") == Some(&Value::Bool(true));
        // A token of another type, such as one that is bound to a key, proves nothing by being shown.
        let is_bearer = claims.at("token_type").is_none_or(|kind| is_text(kind, &["bearer", "access_token"]));
        Ok(Some(claims).filter(|_| is_active && is_bearer))
    }

    async fn token_info(&self, token: &str) -> Result<Option<Claims>, FetchError> {
        let request = self.fetcher.request(Method::POST, &self.url)?.bearer_auth(token).form(&[("", ""); 0]);
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

fn is_text(value: &Value, texts: &[&str]) -> bool {
    value.as_str().is_some_and(|value| texts.iter().any(|text| value.eq_ignore_ascii_case(text)))
}
