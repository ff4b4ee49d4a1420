//! Generation and comparison of secrets.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// 256 random bits as URL-safe text.
pub(crate) fn random() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// The SHA-256 of a secret.
#[derive(Clone, Copy)]
pub(crate) struct SecretDigest([u8; 32]);

impl SecretDigest {
    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Parses the text of [`Self::to_text`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub(crate) fn to_text(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Whether it is the digest of this secret, in constant time.
    pub(crate) fn is_of(self, presented: &str) -> bool {
        self.0.ct_eq(&Sha256::digest(presented)).into()
    }
}

/// Whether the secret matches, in constant time for any length, because digests are compared.
pub(crate) fn matches(expected: &SecretString, presented: &str) -> bool {
    let expected = Sha256::digest(expected.expose_secret());
    expected.ct_eq(&Sha256::digest(presented)).into()
}
