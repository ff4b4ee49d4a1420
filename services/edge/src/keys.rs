//! The edge's secret, and the keys that are derived from it by HKDF-SHA256 (RFC 5869). Replicas
//! with the same secret have the same keys.

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, RandomizedNonceKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, Prk, Salt},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretBox, SecretString};

use crate::sealer::Sealer;

/// The least length of a secret, in bytes: that of the keys that are derived from it.
pub const SECRET_BYTES_MIN: usize = 32;
const KEY_BYTES: usize = 32;
/// It separates the edge's keys from all other keys that are derived from the same secret.
const SALT: &[u8] = b"drawbridge edge";

/// The edge's secret cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is too short to protect anything.
    #[error(
        "--secret has {bytes} bytes, but at least {SECRET_BYTES_MIN} are required; make one with \
         `openssl rand -base64 32`"
    )]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// Replicas that share a Redis have no common secret.
    #[error(
        "--redis-url needs --secret, the same on every replica; make one with `openssl rand \
         -base64 32`"
    )]
    Missing,
    /// The cryptographic library failed.
    #[error("cannot derive keys from --secret")]
    Derivation,
}

impl From<Unspecified> for SecretError {
    fn from(_: Unspecified) -> Self {
        Self::Derivation
    }
}

/// A random secret.
#[must_use]
pub fn random_secret() -> SecretString {
    let random = SecretBox::<[u8; KEY_BYTES]>::init_with(rand::random);
    BASE64.encode(random.expose_secret()).into()
}

/// What a key is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    SessionIds,
    ReplicaMessages,
    RequestStates,
    CacheKeys,
    CacheEntries,
}

impl Purpose {
    /// The `info` of RFC 5869, which makes the key of each purpose another one. What is done with a
    /// key changes only together with its version.
    const fn info(self) -> &'static [u8] {
        match self {
            Self::SessionIds => b"session ids v1",
            Self::ReplicaMessages => b"replica messages v1",
            Self::RequestStates => b"request states v1",
            Self::CacheKeys => b"cache keys v1",
            Self::CacheEntries => b"cache entries v1",
        }
    }
}

/// All keys of an edge, each for one purpose.
#[derive(Debug)]
pub(crate) struct EdgeKeys {
    pub(crate) mcp: McpKeys,
    pub(crate) cache: CacheKeys,
}

/// The keys of the MCP server.
#[derive(Debug)]
pub(crate) struct McpKeys {
    pub(crate) sessions: SessionKeys,
    /// Seals the states that clients store between two calls.
    pub(crate) request_states: Sealer,
}

/// The keys of sessions.
#[derive(Debug)]
pub(crate) struct SessionKeys {
    /// Binds the ids of sessions to their principals.
    pub(crate) ids: hmac::Key,
    /// Seals messages between replicas.
    pub(crate) messages: Sealer,
}

/// The keys of the cache.
#[derive(Debug)]
pub(crate) struct CacheKeys {
    /// Makes the digests that entries are found by.
    pub(crate) digests: hmac::Key,
    /// Seals the entries in Redis.
    pub(crate) entries: Sealer,
}

impl EdgeKeys {
    /// The keys of this secret. Without one they are random, for a single replica.
    ///
    /// # Errors
    /// When the secret is too short, or is missing although replicas share a Redis.
    pub(crate) fn new(secret: Option<&SecretString>, has_redis: bool) -> Result<Self, SecretError> {
        match secret {
            Some(secret) => Self::derive(secret),
            // The replicas would share sessions and entries that no other one can open.
            None if has_redis => Err(SecretError::Missing),
            None => Self::derive(&random_secret()),
        }
    }

    fn derive(secret: &SecretString) -> Result<Self, SecretError> {
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretError::TooShort { bytes: secret.len() });
        }
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(secret);
        Ok(Self {
            mcp: McpKeys {
                sessions: SessionKeys {
                    ids: mac_key(&extracted, Purpose::SessionIds)?,
                    messages: sealer(&extracted, Purpose::ReplicaMessages)?,
                },
                request_states: sealer(&extracted, Purpose::RequestStates)?,
            },
            cache: CacheKeys {
                digests: mac_key(&extracted, Purpose::CacheKeys)?,
                entries: sealer(&extracted, Purpose::CacheEntries)?,
            },
        })
    }

    /// The keys of a secret that contains this text.
    #[cfg(test)]
    pub(crate) fn for_tests(text: &str) -> Self {
        Self::derive(&format!("{text:-<SECRET_BYTES_MIN$}").into()).unwrap()
    }
}

fn mac_key(extracted: &Prk, purpose: Purpose) -> Result<hmac::Key, Unspecified> {
    let key = key_bytes(extracted, purpose)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret()))
}

fn sealer(extracted: &Prk, purpose: Purpose) -> Result<Sealer, Unspecified> {
    let key = key_bytes(extracted, purpose)?;
    // SIV: a busy replica draws so many random nonces that two of them may collide.
    Ok(Sealer::new(RandomizedNonceKey::new(&AES_256_GCM_SIV, key.expose_secret())?))
}

fn key_bytes(extracted: &Prk, purpose: Purpose) -> Result<SecretBox<[u8; KEY_BYTES]>, Unspecified> {
    let mut key = SecretBox::new(Box::new([0; KEY_BYTES]));
    let info = [purpose.info()];
    extracted.expand(&info, HKDF_SHA256)?.fill(key.expose_secret_mut())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_purposes_or_secrets_have_the_same_key() {
        use Purpose::{CacheEntries, CacheKeys, ReplicaMessages, RequestStates, SessionIds};
        let mut keys = Vec::new();
        for secret in ["one", "two"] {
            let extracted = Salt::new(HKDF_SHA256, SALT).extract(secret.as_bytes());
            for purpose in [SessionIds, ReplicaMessages, RequestStates, CacheKeys, CacheEntries] {
                keys.push(*key_bytes(&extracted, purpose).unwrap().expose_secret());
                let again = key_bytes(&extracted, purpose).unwrap();
                assert_eq!(keys.last().unwrap(), again.expose_secret(), "on another replica");
            }
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), count), (10, 10));
        assert!(!keys.contains(&[0; KEY_BYTES]));
    }

    #[test]
    fn a_short_secret_is_refused_with_the_command_that_makes_one() {
        let check = |secret: &str, bytes| {
            let error = EdgeKeys::new(Some(&secret.into()), false).unwrap_err();
            assert_eq!(error, SecretError::TooShort { bytes });
            assert!(error.to_string().contains("`openssl rand -base64 32`"), "{error}");
        };
        check("", 0);
        check("x", 1);
        check(&"x".repeat(31), 31);
        EdgeKeys::new(Some(&"x".repeat(32).into()), true).unwrap();
        EdgeKeys::new(Some(&random_secret()), true).unwrap();
    }

    #[test]
    fn redis_needs_a_secret_that_all_replicas_share() {
        EdgeKeys::new(None, false).unwrap();
        let error = EdgeKeys::new(None, true).unwrap_err();
        assert_eq!(error, SecretError::Missing);
        assert!(error.to_string().contains("the same on every replica"), "{error}");
    }

    #[test]
    fn the_keys_do_not_show_in_debug_output() {
        let shown = format!("{:?}", EdgeKeys::for_tests("hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
