//! The keys of transaction tokens: those of this replica, and those of its peers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use drawbridge_transport::transaction_token::{ALGORITHM, TOKEN_TYPE};
use jsonwebtoken::{
    EncodingKey, Header,
    jwk::{
        AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse,
        ThumbprintHash,
    },
};
use serde::Deserialize as _;
use tokio::time::Instant;

use super::MintError;
use crate::metrics::TRANSACTION_KEYS;

/// The most keys that are published: verifiers use no more of a set.
pub(super) const KEYS_MAX: usize = 64;
/// The length of a public key in bytes.
const PUBLIC_KEY_BYTES: usize = 32;

/// A signing key. It never leaves the process.
pub(super) struct SigningKey {
    pub(super) key: EncodingKey,
    pub(super) header: Header,
    pub(super) public: Jwk,
}

impl SigningKey {
    pub(super) fn generate() -> Result<Self, MintError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| MintError::KeyPair)?;
        let document = pair.to_pkcs8v1().map_err(|_| MintError::KeyPair)?;
        let key = EncodingKey::from_ed_der(document.as_ref());
        let exported = Jwk::from_encoding_key(&key, ALGORITHM).map_err(MintError::PublicKey)?;
        let public = with_thumbprint(exported.algorithm).map_err(MintError::PublicKey)?;
        let mut header = Header::new(ALGORITHM);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid.clone_from(&public.common.key_id);
        Ok(Self { key, header, public })
    }

    /// Its RFC 7638 thumbprint.
    pub(super) fn id(&self) -> &str {
        id(&self.public)
    }
}

/// A key with its thumbprint as its id (RFC 7638), and nothing else that its publisher may have
/// added.
fn with_thumbprint(algorithm: AlgorithmParameters) -> Result<Jwk, jsonwebtoken::errors::Error> {
    let common = CommonParameters {
        public_key_use: Some(PublicKeyUse::Signature),
        key_algorithm: Some(ALGORITHM.into()),
        ..CommonParameters::default()
    };
    let mut key = Jwk { common, algorithm };
    key.common.key_id = Some(key.thumbprint(ThumbprintHash::SHA256)?);
    Ok(key)
}

/// The id of a key of this module, which has one.
fn id(key: &Jwk) -> &str {
    key.common.key_id.as_deref().unwrap_or_default()
}

/// Why a peer's key is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeerKeyError {
    /// It cannot sign transaction tokens.
    #[error("it is not an Ed25519 key")]
    Kind,
    /// Another key may have the same id.
    #[error("its id is not its RFC 7638 thumbprint")]
    Thumbprint,
    /// Verifiers would not use it.
    #[error("{KEYS_MAX} keys are published already")]
    TooMany,
}

impl PeerKeyError {
    /// The label of the metric.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Thumbprint => "thumbprint",
            Self::TooMany => "too_many",
        }
    }
}

/// Checks a key as its peer publishes it.
fn check(published: &serde_json::Value) -> Result<Jwk, PeerKeyError> {
    let key = Jwk::deserialize(published).map_err(|_| PeerKeyError::Kind)?;
    let AlgorithmParameters::OctetKeyPair(pair) = &key.algorithm else {
        return Err(PeerKeyError::Kind);
    };
    let has_length =
        BASE64_URL_SAFE_NO_PAD.decode(&pair.x).is_ok_and(|public| public.len() == PUBLIC_KEY_BYTES);
    if pair.curve != EllipticCurve::Ed25519 || !has_length {
        return Err(PeerKeyError::Kind);
    }
    let checked = with_thumbprint(key.algorithm).map_err(|_| PeerKeyError::Kind)?;
    if key.common.key_id != checked.common.key_id {
        return Err(PeerKeyError::Thumbprint);
    }
    Ok(checked)
}

/// The key that signs, and all keys that are published.
///
/// INVARIANT: the id of a published key is its thumbprint, so that no peer can replace another's
/// key.
pub(crate) struct Keyring {
    signing: ArcSwap<SigningKey>,
    keys: Mutex<Keys>,
    published: ArcSwap<JwkSet>,
}

#[derive(Default)]
struct Keys {
    /// The previous, the signing and the next key of this replica; the newest is last.
    own: Vec<Jwk>,
    /// By id.
    of_peers: BTreeMap<String, PeerKey>,
}

struct PeerKey {
    key: Jwk,
    /// It is published until then, unless a peer lists it again.
    until: Instant,
}

impl Keyring {
    /// A keyring with one key of its own.
    pub(crate) fn new() -> Result<Self, MintError> {
        let signing = SigningKey::generate()?;
        let keyring = Self {
            keys: Mutex::default(),
            published: ArcSwap::default(),
            signing: ArcSwap::from_pointee(signing),
        };
        keyring.publish(keyring.signing.load().public.clone());
        Ok(keyring)
    }

    /// The key that signs.
    pub(super) fn signing(&self) -> Guard<Arc<SigningKey>> {
        self.signing.load()
    }

    /// The keys of this replica and of its peers.
    pub(crate) fn published(&self) -> Guard<Arc<JwkSet>> {
        self.published.load()
    }

    /// The keys of this replica.
    pub(super) fn own(&self) -> Vec<Jwk> {
        self.lock().own.clone()
    }

    /// The id of the newest key of this replica.
    pub(crate) fn newest(&self) -> String {
        self.lock().own.last().map(|key| id(key).to_owned()).unwrap_or_default()
    }

    /// Publishes another key of this replica.
    pub(super) fn publish(&self, key: Jwk) {
        self.update(|keys| keys.own.push(key));
    }

    /// Signs with this key, which was published before.
    pub(super) fn sign_with(&self, key: SigningKey) {
        self.signing.store(Arc::new(key));
    }

    /// Publishes the signing key alone of this replica's keys.
    pub(super) fn withdraw_previous(&self) {
        let signing = self.signing.load().public.clone();
        self.update(|keys| keys.own = vec![signing]);
    }

    /// Publishes what a peer lists as its keys until `until`. Returns the keys that are refused.
    pub(super) fn list(
        &self,
        published: &[serde_json::Value],
        until: Instant,
    ) -> Vec<PeerKeyError> {
        let mut refused = Vec::new();
        self.update(|keys| {
            for key in published {
                match check(key).and_then(|key| keys.list(key, until)) {
                    Ok(()) => {}
                    Err(error) => refused.push(error),
                }
            }
        });
        refused
    }

    /// Withdraws the keys that no peer has listed for too long.
    pub(super) fn expire(&self, now: Instant) {
        self.update(|keys| keys.of_peers.retain(|_, key| now < key.until));
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Keys)) {
        let mut keys = self.lock();
        change(&mut keys);
        let of_peers = keys.of_peers.values().map(|peer| &peer.key);
        let published: Vec<_> = keys.own.iter().chain(of_peers).cloned().collect();
        TRANSACTION_KEYS.get().set(u32::try_from(published.len()).unwrap_or(u32::MAX));
        self.published.store(Arc::new(JwkSet { keys: published }));
    }
}

impl Keys {
    fn list(&mut self, key: Jwk, until: Instant) -> Result<(), PeerKeyError> {
        if self.own.contains(&key) {
            return Ok(());
        }
        if let Some(known) = self.of_peers.get_mut(id(&key)) {
            known.until = until;
            return Ok(());
        }
        if self.own.len() + self.of_peers.len() >= KEYS_MAX {
            return Err(PeerKeyError::TooMany);
        }
        self.of_peers.insert(id(&key).to_owned(), PeerKey { key, until });
        Ok(())
    }
}
