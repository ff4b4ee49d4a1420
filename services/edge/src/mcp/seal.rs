//! `requestState`: state of a tool service that a client stores between two calls (SEP-2322).
//!
//! It is encrypted and authenticated, bound to the caller and to the exact request, and it expires.
//! A client can neither read nor change it, nor use it for another call or another principal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::{
    length_prefixed,
    trace::{self, SpanContext},
};
use prost::Message;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::sealer::Sealer;

/// How long a person may take to respond.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// The longest state that is opened, in bytes.
const SEALED_BYTES_MAX: usize = 64 * 1024;

/// Seals and opens states. Replicas that share a secret open each other's.
#[derive(Debug)]
pub(crate) struct Seal(Sealer);

/// The sealed content.
#[derive(Clone, PartialEq, Message)]
struct SealedState {
    #[prost(uint64, tag = "1")]
    expires_at: u64,
    #[prost(bytes = "vec", tag = "2")]
    state: Vec<u8>,
    /// The span of the call that asked: trace id and span id. Empty: none.
    #[prost(bytes = "vec", tag = "3")]
    asked_in: Vec<u8>,
}

/// The state was not sealed for this caller and request, or it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid requestState: it was not issued for this request, or it has expired")]
pub(crate) struct SealError;

impl Seal {
    pub(crate) fn new(sealer: Sealer) -> Self {
        Self(sealer)
    }

    /// Seals a state for a caller and its request, which was made in the span `asked_in`.
    pub(crate) fn seal(
        &self,
        bound_to: &Binding,
        state: &[u8],
        asked_in: Option<&SpanContext>,
    ) -> Result<String, SealError> {
        let expires_at = seconds(SystemTime::now() + LIFETIME);
        let asked_in = asked_in.map(trace::to_bytes).unwrap_or_default();
        let content = SealedState { expires_at, state: state.to_vec(), asked_in }.encode_to_vec();
        self.0.seal(&bound_to.0, &content).map(|sealed| BASE64.encode(sealed)).ok_or(SealError)
    }

    /// Opens a state of the same caller and request. Returns the span of that request too.
    pub(crate) fn open(
        &self,
        bound_to: &Binding,
        sealed: &str,
    ) -> Result<(Vec<u8>, Option<SpanContext>), SealError> {
        if sealed.len() > SEALED_BYTES_MAX {
            return Err(SealError);
        }
        let sealed = BASE64.decode(sealed).map_err(|_| SealError)?;
        let content = self.0.open(&bound_to.0, sealed).ok_or(SealError)?;
        let sealed = SealedState::decode(content).map_err(|_| SealError)?;
        if sealed.expires_at < seconds(SystemTime::now()) {
            return Err(SealError);
        }
        Ok((sealed.state, trace::from_bytes(&sealed.asked_in)))
    }
}

/// What a state is bound to: the principal, the RPC and the arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding([u8; 32]);

impl Binding {
    pub(crate) fn new(
        principal: &auth::Principal,
        rpc: &str,
        arguments: &Value,
    ) -> Result<Self, SealError> {
        // Canonical, because the members of a JSON object have no order (RFC 8785).
        let arguments = serde_json_canonicalizer::to_vec(arguments).map_err(|_| SealError)?;
        let mut digest = Sha256::new();
        let auth::Principal { issuer, subject, client_id, tenant, workload, .. } = principal;
        digest.update([u8::from(*workload)]);
        let mut add = |part: &[u8]| length_prefixed(part, |bytes| digest.update(bytes));
        for part in [issuer, subject, client_id, tenant, rpc] {
            add(part.as_bytes());
        }
        add(&arguments);
        Ok(Self(digest.finalize().into()))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::keys::EdgeKeys;

    fn seal_of(secret: &str) -> Seal {
        Seal::new(EdgeKeys::for_tests(secret).mcp.request_states)
    }

    fn binding(subject: &str, rpc: &str, arguments: &Value) -> Binding {
        let principal = auth::Principal { subject: subject.into(), ..Default::default() };
        Binding::new(&principal, rpc, arguments).unwrap()
    }

    #[test]
    fn a_state_opens_only_for_the_same_caller_and_request() {
        let seal = seal_of("one");
        let mine = binding("alice", "tool", &json!({ "a": 1, "b": [2] }));
        let sealed = seal.seal(&mine, b"secret state", None).unwrap();
        assert!(!sealed.contains("secret"));
        assert_eq!(seal.open(&mine, &sealed).unwrap().0, b"secret state");
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
        let replica = seal_of("one");
        assert!(replica.open(&mine, &sealed).is_ok());
        assert_eq!(seal_of("two").open(&mine, &sealed), Err(SealError));
    }

    #[test]
    fn a_tampered_state_does_not_open() {
        let seal = seal_of("one");
        let mine = binding("alice", "tool", &json!({ "a": 1, "b": [2] }));
        let sealed = BASE64.decode(seal.seal(&mine, b"state", None).unwrap()).unwrap();
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
