//! Digests of what decisions depend on, the same at every replica.

use drawbridge_runtime::length_prefixed;
use sha2::{Digest as _, Sha256};

/// A digest of a list of parts.
pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        length_prefixed(part, |bytes| digest.update(bytes));
    }
    digest.finalize().into()
}

/// A digest of a list of parts as a number. Never zero, which stands for no epoch.
pub(crate) fn number(parts: &[&[u8]]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest(parts);
    u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
}
