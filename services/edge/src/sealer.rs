//! Encryption of the values that replicas share in Redis.

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey},
    error::Unspecified,
};
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

const NONCE_BYTES: usize = 12;

/// Encrypts values, each bound to the key under which it is stored. Replicas that share a secret
/// can decrypt each other's values.
#[derive(Debug)]
pub(crate) struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// A sealer for one kind of values. Its key is derived from `secret` and the label, so it
    /// differs from all other keys derived from the secret.
    pub(crate) fn new(secret: &SecretString, label: &str) -> Result<Self, Unspecified> {
        let label = format!("drawbridge {label}\0");
        let key = Sha256::new().chain_update(label).chain_update(secret.expose_secret());
        // SIV: a busy replica draws so many random nonces that two of them may collide.
        Ok(Self(RandomizedNonceKey::new(&AES_256_GCM_SIV, &key.finalize())?))
    }

    pub(crate) fn seal(&self, key: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        let mut text = bytes.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(key), &mut text).ok()?;
        Some([nonce.as_ref().as_slice(), &text].concat())
    }

    pub(crate) fn open(&self, key: &[u8], mut sealed: Vec<u8>) -> Option<Bytes> {
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.0.open_in_place(nonce, Aad::from(key), text).ok()?.len();
        Some(Bytes::from(sealed).slice(NONCE_BYTES..NONCE_BYTES + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_only_with_its_key_label_and_secret() {
        let sealer = Sealer::new(&"one".into(), "test").unwrap();
        let sealed = sealer.seal(b"key", b"IBAN of alice").unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"alice"));
        let open = |sealer: &Sealer, key: &[u8], sealed: &[u8]| sealer.open(key, sealed.to_vec());
        assert_eq!(open(&sealer, b"key", &sealed).as_deref(), Some(b"IBAN of alice".as_slice()));
        assert_eq!(open(&sealer, b"other", &sealed), None);
        for other in [("two", "test"), ("one", "another")] {
            assert_eq!(
                open(&Sealer::new(&other.0.into(), other.1).unwrap(), b"key", &sealed),
                None
            );
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&sealer, b"key", &changed), None, "byte {at}");
        }
        assert_eq!(open(&sealer, b"key", b"too short"), None);
    }
}
