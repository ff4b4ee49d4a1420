//! Making and comparing secrets.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// 256 random bits as text, fit for URLs.
pub(crate) fn random() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// Whether the secret is the one expected. The time taken tells nothing of either, their lengths included,
/// because digests are compared.
pub(crate) fn matches(expected: &SecretString, presented: &str) -> bool {
    let expected = Sha256::digest(expected.expose_secret());
    expected.ct_eq(&Sha256::digest(presented)).into()
}
