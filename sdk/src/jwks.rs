//! Keys of a token issuer, fetched over HTTP and kept.

use std::{
    collections::HashMap,
    str::FromStr as _,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use tokio::sync::Mutex;
use url::Url;

/// An unknown key id causes at most one fetch in this time, so that made-up ids are no lever.
const REFETCH_INTERVAL: Duration = Duration::from_secs(5);
/// Kept keys are fetched again after this time.
const FRESH: Duration = Duration::from_secs(300);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: usize = 256 * 1024;
const KEYS_MAX: usize = 64;

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The issuer has no such key.
    #[error("the issuer has no key with this id")]
    UnknownKey,
    /// The key set could not be fetched.
    #[error("cannot fetch {url}")]
    Fetch {
        /// From where.
        url: Url,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// What came back is no key set.
    #[error("{url} is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge {
        /// From where.
        url: Url,
    },
    /// What came back is no JSON of the right kind.
    #[error("cannot read what {url} answers")]
    Malformed {
        /// From where.
        url: Url,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A public key and the algorithms it may verify.
#[derive(Debug)]
pub struct VerificationKey {
    /// The key.
    pub key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl VerificationKey {
    /// Whether the key may verify signatures of this algorithm.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

#[derive(Debug, Default)]
struct Keys {
    by_id: HashMap<String, Arc<VerificationKey>>,
    fetched: Option<Instant>,
}

/// The key set behind a URL. Keys in hand serve while the URL does not answer.
#[derive(Debug)]
pub struct Jwks {
    url: Url,
    http: reqwest::Client,
    keys: ArcSwap<Keys>,
    /// When the last fetch was tried. Held while one is under way, so that there is one at a time.
    tried: Mutex<Option<Instant>>,
}

impl Jwks {
    /// The key set at `url`. Nothing is fetched before the first key is asked for.
    #[must_use]
    pub fn new(url: Url, http: reqwest::Client) -> Self {
        Self { url, http, keys: ArcSwap::default(), tried: Mutex::new(None) }
    }

    /// The key with this id.
    ///
    /// # Errors
    /// [`JwksError::UnknownKey`] when the issuer has none; others when the key set cannot be fetched and
    /// the key is not in hand.
    pub async fn key(&self, id: &str) -> Result<Arc<VerificationKey>, JwksError> {
        let keys = self.keys.load();
        let fresh = keys.fetched.is_some_and(|fetched| fetched.elapsed() < FRESH);
        match keys.by_id.get(id) {
            Some(key) if fresh => return Ok(Arc::clone(key)),
            _ => {}
        }
        let in_hand = keys.by_id.get(id).cloned();
        drop(keys);
        match (self.refresh().await, in_hand) {
            (Err(error), Some(key)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "serving a key in hand");
                Ok(key)
            }
            (Err(error), None) => Err(error),
            (Ok(()), _) => self.keys.load().by_id.get(id).cloned().ok_or(JwksError::UnknownKey),
        }
    }

    async fn refresh(&self) -> Result<(), JwksError> {
        let asked = Instant::now();
        let mut tried = self.tried.lock().await;
        let fetched = self.keys.load().fetched;
        // Somebody else fetched while this caller waited, or just before.
        if fetched.is_some_and(|at| at >= asked)
            || (fetched.is_some() && tried.is_some_and(|at| at.elapsed() < REFETCH_INTERVAL))
        {
            return Ok(());
        }
        *tried = Some(Instant::now());
        let set: JwkSet = fetch_json(&self.http, &self.url).await?;
        let by_id = set.keys.iter().take(KEYS_MAX).filter_map(verification_key).collect();
        self.keys.store(Arc::new(Keys { by_id, fetched: Some(Instant::now()) }));
        Ok(())
    }
}

/// A client for key sets and metadata: bounded in time, and never led elsewhere by a redirect.
///
/// # Errors
/// When the platform's certificates cannot be read.
pub fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// Fetches a JSON document of bounded size.
///
/// # Errors
/// When it does not come, is too large or is not of the right kind.
pub async fn fetch_json<T: serde::de::DeserializeOwned>(
    http: &reqwest::Client,
    url: &Url,
) -> Result<T, JwksError> {
    let failed = |source| JwksError::Fetch { url: url.clone(), source };
    let mut response =
        http.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(JwksError::TooLarge { url: url.clone() });
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|source| JwksError::Malformed { url: url.clone(), source })
}

/// Takes the asymmetric signature keys; others are passed over.
fn verification_key(jwk: &Jwk) -> Option<(String, Arc<VerificationKey>)> {
    let id = jwk.common.key_id.clone()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        // Symmetric keys have no place in a public key set.
        _ => return None,
    };
    if let Some(algorithm) = jwk.common.key_algorithm {
        let algorithm = Algorithm::from_str(&algorithm.to_string()).ok()?;
        algorithms.retain(|known| *known == algorithm);
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some((id, Arc::new(VerificationKey { key, algorithms })))
}
