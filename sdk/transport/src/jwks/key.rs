//! One public key of a key set.

use std::{collections::HashMap, str::FromStr as _, sync::Arc};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

/// The most keys of one set that are used.
const KEYS_MAX: usize = 64;

/// A public key and the algorithms it may verify.
#[derive(Debug)]
pub struct VerificationKey {
    /// The key.
    pub key: DecodingKey,
    algorithms: Vec<Algorithm>,
    /// As published, to compare it with a later publication.
    published: Jwk,
}

impl VerificationKey {
    /// Whether the key may verify signatures of this algorithm.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

impl PartialEq for VerificationKey {
    fn eq(&self, other: &Self) -> bool {
        self.published == other.published
    }
}

/// A key of a key set that can verify tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableKey {
    /// Its id (`kid`).
    pub id: String,
    /// The algorithms that it may verify, by their names in RFC 7518 and RFC 8037.
    pub algorithms: Vec<String>,
}

/// The keys of a key set that can verify tokens, by their id. Others are skipped, as when tokens
/// are verified.
///
/// # Errors
/// When the document is not a key set (RFC 7517 section 5).
pub fn usable_keys(document: &[u8]) -> Result<Vec<UsableKey>, serde_json::Error> {
    let set: PublishedSet = serde_json::from_slice(document)?;
    let keys = set.usable().into_iter().map(|(id, key)| UsableKey {
        id,
        algorithms: key.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect(),
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(keys)
}

/// Keys by their id.
pub(super) type KeySet = HashMap<String, Arc<VerificationKey>>;

/// A published key set (RFC 7517 section 5). It may contain keys of unknown kinds.
#[derive(Deserialize)]
pub(super) struct PublishedSet {
    keys: Vec<serde_json::Value>,
}

impl PublishedSet {
    /// The asymmetric signature keys; others are skipped.
    pub(super) fn usable(self) -> KeySet {
        let keys = self.keys.into_iter().take(KEYS_MAX);
        keys.filter_map(|key| usable(serde_json::from_value(key).ok()?)).collect()
    }
}

fn usable(published: Jwk) -> Option<(String, Arc<VerificationKey>)> {
    let id = published.common.key_id.clone()?;
    if !matches!(published.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let operations = published.common.key_operations.as_ref();
    if operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return None;
    }
    let mut algorithms = match &published.algorithm {
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
        // Symmetric keys do not belong into a public key set.
        _ => return None,
    };
    if let Some(algorithm) = published.common.key_algorithm {
        let algorithm = Algorithm::from_str(&algorithm.to_string()).ok()?;
        algorithms.retain(|known| *known == algorithm);
    }
    let key = DecodingKey::from_jwk(&published).ok()?;
    Some((id, Arc::new(VerificationKey { key, algorithms, published })))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn ids(keys: Value) -> Vec<String> {
        let set: PublishedSet = serde_json::from_value(json!({ "keys": keys })).unwrap();
        let mut ids: Vec<_> = set.usable().into_keys().collect();
        ids.sort();
        ids
    }

    #[test]
    fn keys_that_are_not_for_signatures_are_skipped() {
        let ec = |id: &str, more: Value| {
            let mut key = json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": id });
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            key
        };
        let found = ids(json!([
            ec("plain", json!({})),
            ec("signs", json!({ "use": "sig", "alg": "ES256", "key_ops": ["verify"] })),
            ec("encrypts", json!({ "use": "enc" })),
            ec("derives", json!({ "key_ops": ["deriveKey"] })),
            { "kty": "oct", "k": "c2VjcmV0", "kid": "symmetric", "alg": "HS256" },
            { "kty": "EC", "crv": "secp256k1", "x": X, "y": Y, "kid": "curve" },
            { "kty": "AKP", "alg": "ML-DSA-65", "pub": "AA", "kid": "of-the-future" },
            { "kty": "EC", "crv": "P-256", "x": X, "y": Y },
            "nonsense",
        ]));
        assert_eq!(found, ["plain", "signs"]);
    }

    #[test]
    fn a_key_verifies_only_the_algorithm_that_it_names() {
        let key = json!({
            "kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "a", "alg": "ES384",
        });
        let set = json!({ "keys": [key] });
        let set: PublishedSet = serde_json::from_value(set).unwrap();
        assert!(!set.usable()["a"].verifies(Algorithm::ES256));
    }
}
