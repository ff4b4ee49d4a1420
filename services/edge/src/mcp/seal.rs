//! `requestState`: state of a tool service that a client stores between two calls (SEP-2322).
//!
//! It is encrypted and authenticated, bound to the caller and to the exact request, and it expires.
//! A client can neither read nor change it, nor use it for another call or another principal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    error::Unspecified,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::length_prefixed;
use prost::Message;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// How long a person may take to respond.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// The longest state that is opened, in bytes.
const SEALED_BYTES_MAX: usize = 64 * 1024;
const NONCE_BYTES: usize = 12;

/// Seals and opens states. Replicas that share a secret open each other's.
#[derive(Debug)]
pub(crate) struct Seal {
    key: RandomizedNonceKey,
}

/// The sealed content.
#[derive(Clone, PartialEq, Message)]
struct SealedState {
    #[prost(uint64, tag = "1")]
    expires_at: u64,
    #[prost(bytes = "vec", tag = "2")]
    state: Vec<u8>,
}

/// The state was not sealed for this caller and request, or it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid requestState: it was not issued for this request, or it has expired")]
pub struct SealError;

impl From<Unspecified> for SealError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

impl Seal {
    /// A seal with a key derived from `secret`.
    pub(crate) fn new(secret: &SecretString) -> Result<Self, SealError> {
        // The label separates this key from other keys that are derived from the secret.
        let key = Sha256::new()
            .chain_update(b"drawbridge request state\0")
            .chain_update(secret.expose_secret());
        Ok(Self { key: RandomizedNonceKey::new(&AES_256_GCM, &key.finalize())? })
    }

    /// Seals a state for a caller and its request.
    pub(crate) fn seal(&self, bound_to: &Binding, state: &[u8]) -> Result<String, SealError> {
        let expires_at = seconds(SystemTime::now() + LIFETIME);
        let mut text = SealedState { expires_at, state: state.to_vec() }.encode_to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(bound_to.0), &mut text)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Ok(BASE64.encode(sealed))
    }

    /// Opens a state of the same caller and request.
    pub(crate) fn open(&self, bound_to: &Binding, sealed: &str) -> Result<Vec<u8>, SealError> {
        if sealed.len() > SEALED_BYTES_MAX {
            return Err(SealError);
        }
        let mut sealed = BASE64.decode(sealed).map_err(|_| SealError)?;
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_BYTES).ok_or(SealError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        let text = self.key.open_in_place(nonce, Aad::from(bound_to.0), text)?;
        let sealed = SealedState::decode(&*text).map_err(|_| SealError)?;
        if sealed.expires_at < seconds(SystemTime::now()) {
            return Err(SealError);
        }
        Ok(sealed.state)
    }
}

/// What a state is bound to: the principal, the RPC and the arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding([u8; 32]);

impl Binding {
    pub(crate) fn new(principal: &auth::Principal, rpc: &str, arguments: &Value) -> Self {
        let mut digest = Sha256::new();
        let auth::Principal { issuer, subject, client_id, tenant, workload, .. } = principal;
        digest.update([u8::from(*workload)]);
        for part in [issuer, subject, client_id, tenant, rpc] {
            add(&mut digest, part.as_bytes());
        }
        add_json(&mut digest, arguments);
        Self(digest.finalize().into())
    }
}

fn add(digest: &mut Sha256, part: &[u8]) {
    length_prefixed(part, |bytes| digest.update(bytes));
}

/// Adds JSON independently of the order of its fields: JSON objects are unordered.
fn add_json(digest: &mut Sha256, json: &Value) {
    match json {
        Value::Object(object) => {
            digest.update(b"{");
            digest.update((object.len() as u64).to_be_bytes());
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in fields {
                add(digest, name.as_bytes());
                add_json(digest, value);
            }
        }
        Value::Array(items) => {
            digest.update(b"[");
            digest.update((items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| add_json(digest, item));
        }
        plain => {
            digest.update(b"=");
            add(digest, plain.to_string().as_bytes());
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn binding(subject: &str, rpc: &str, arguments: &Value) -> Binding {
        let principal = auth::Principal { subject: subject.into(), ..Default::default() };
        Binding::new(&principal, rpc, arguments)
    }

    #[test]
    fn a_state_opens_only_for_the_same_caller_and_request() {
        let seal = Seal::new(&"one".into()).unwrap();
        let mine = binding("alice", "tool", &json!({ "a": 1, "b": [2] }));
        let sealed = seal.seal(&mine, b"secret state").unwrap();
        assert!(!sealed.contains("secret"));
        assert_eq!(seal.open(&mine, &sealed).unwrap(), b"secret state");
        for other in [
            binding("bob", "tool", &json!({ "a": 1, "b": [2] })),
            binding("alice", "other", &json!({ "a": 1, "b": [2] })),
            binding("alice", "tool", &json!({ "a": 1, "b": [3] })),
        ] {
            assert_eq!(seal.open(&other, &sealed), Err(SealError));
        }
        assert!(
            seal.open(&binding("alice", "tool", &json!({ "b": [2], "a": 1 })), &sealed).is_ok()
        );
        let replica = Seal::new(&"one".into()).unwrap();
        assert!(replica.open(&mine, &sealed).is_ok());
        assert_eq!(Seal::new(&"two".into()).unwrap().open(&mine, &sealed), Err(SealError));
    }

    #[test]
    fn a_tampered_state_does_not_open() {
        let seal = Seal::new(&"one".into()).unwrap();
        let mine = binding("alice", "tool", &json!({ "a": 1, "b": [2] }));
        let sealed = BASE64.decode(seal.seal(&mine, b"state").unwrap()).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(seal.open(&mine, &BASE64.encode(changed)), Err(SealError), "byte {at}");
        }
        for text in ["", "x", "not base64!", &"A".repeat(SEALED_BYTES_MAX + 1)] {
            assert_eq!(seal.open(&mine, text), Err(SealError));
        }
    }
}
