//! Authenticated encryption of what leaves the process: values that replicas share in Redis, and
//! states that clients store.

use aws_lc_rs::aead::{Aad, Nonce, RandomizedNonceKey};
use bytes::Bytes;

const NONCE_BYTES: usize = 12;

/// Encrypts values of one kind, each bound to what it belongs to, such as the key under which it is
/// stored. Replicas that share a secret can decrypt each other's values.
#[derive(Debug)]
pub(crate) struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// A sealer with this key, which [`crate::keys`] derives for one kind of values.
    pub(crate) fn new(key: RandomizedNonceKey) -> Self {
        Self(key)
    }

    pub(crate) fn seal(&self, bound_to: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        let mut text = bytes.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(bound_to), &mut text).ok()?;
        Some([nonce.as_ref().as_slice(), &text].concat())
    }

    /// Opens a sealed value. `None`: it was changed, or sealed with another key or binding.
    pub(crate) fn open(&self, bound_to: &[u8], mut sealed: Vec<u8>) -> Option<Bytes> {
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.0.open_in_place(nonce, Aad::from(bound_to), text).ok()?.len();
        Some(Bytes::from(sealed).slice(NONCE_BYTES..NONCE_BYTES + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::EdgeKeys;

    #[test]
    fn a_value_opens_only_with_its_binding_purpose_and_secret() {
        let keys = EdgeKeys::for_tests("one");
        let sealer = &keys.cache.entries;
        let sealed = sealer.seal(b"key", b"IBAN of alice").unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"alice"));
        let open = |sealer: &Sealer, key: &[u8], sealed: &[u8]| sealer.open(key, sealed.to_vec());
        assert_eq!(open(sealer, b"key", &sealed).as_deref(), Some(b"IBAN of alice".as_slice()));
        assert_eq!(open(sealer, b"other", &sealed), None);
        for other in [&EdgeKeys::for_tests("two").cache.entries, &keys.mcp.request_states] {
            assert_eq!(open(other, b"key", &sealed), None);
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(sealer, b"key", &changed), None, "byte {at}");
        }
        assert_eq!(open(sealer, b"key", b"too short"), None);
    }
}
