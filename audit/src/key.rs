//! The key of digests: it makes a value of low entropy, such as an invoice number, impossible to
//! guess from its digest.

use std::{fmt, io, path::Path};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER;
use drawbridge_runtime::{bounded, private_files};
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretBox, SecretSlice};
use serde_json::Value;

use crate::lines::named;

/// The least length of a key, in bytes.
const KEY_BYTES_MIN: usize = 32;
/// The largest file of a key, in bytes.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 4096;
/// The length of a key's id, in bytes.
const ID_BYTES: usize = 4;

/// The key of digests, the same in the whole mesh.
#[derive(Clone)]
pub struct DigestKey {
    key: hmac::Key,
    id: String,
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("DigestKey").field(&self.id).finish()
    }
}

impl DigestKey {
    /// Reads the key of a file. White space around it is ignored.
    ///
    /// # Errors
    /// When the file cannot be read, or the key is shorter than 32 bytes.
    pub fn read(path: &Path) -> io::Result<Self> {
        // A mounted secret may belong to another user, who lets this one read it.
        let read = bounded::read_file(path, KEY_FILE_BYTES_MAX);
        Self::parse(path, read.map_err(|error| named(path, &error))?)
    }

    /// Reads the key of a file that only this user may access. It is created with a random key if it
    /// does not exist.
    pub(crate) fn read_or_create(path: &Path) -> io::Result<Self> {
        let bytes = match private_files::read_secret(path, KEY_FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = BASE64_STANDARD.encode(random()?.expose_secret()) + "\n";
                private_files::replace(path, text.as_bytes())?;
                text.into_bytes()
            }
            result => result?,
        };
        Self::parse(path, bytes)
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> io::Result<Self> {
        let bytes = SecretSlice::from(bytes);
        let secret = bytes.expose_secret().trim_ascii();
        if secret.len() < KEY_BYTES_MIN {
            let problem = format!(
                "{}: the key has {} bytes, but at least {KEY_BYTES_MIN} are required; make one \
                 with `openssl rand -base64 32`",
                path.display(),
                secret.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Self::new(secret))
    }

    /// A random key, for digests that are never looked up.
    pub(crate) fn random() -> io::Result<Self> {
        Ok(Self::new(random()?.expose_secret()))
    }

    fn new(secret: &[u8]) -> Self {
        let key = hmac::Key::new(HMAC_SHA256, secret);
        let id = hmac::sign(&key, b"drawbridge audit key id");
        let id = HEXLOWER.encode(&id.as_ref()[..ID_BYTES]);
        Self { key, id }
    }

    /// Its id, which is in every digest.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The digest of JSON, `hmac-sha256:<key id>:<hex>`: HMAC-SHA-256 of its canonical form
    /// (RFC 8785), so that neither white space nor the order of members matters.
    #[must_use]
    pub fn digest(&self, json: &[u8]) -> String {
        let canonical = serde_json::from_slice::<Value>(json)
            .and_then(|value| serde_json_canonicalizer::to_vec(&value));
        let tag = match &canonical {
            Ok(canonical) => hmac::sign(&self.key, canonical),
            Err(_) => hmac::sign(&self.key, json),
        };
        format!("hmac-sha256:{}:{}", self.id, HEXLOWER.encode(tag.as_ref()))
    }
}

fn random() -> io::Result<SecretBox<[u8; KEY_BYTES_MIN]>> {
    let mut secret = SecretBox::new(Box::new([0; KEY_BYTES_MIN]));
    aws_lc_rs::rand::fill(secret.expose_secret_mut())
        .map_err(|_| io::Error::other("no random bytes are available"))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_the_canonical_json_and_needs_the_key() {
        let key = DigestKey::new(&[1; 32]);
        let digest = key.digest(br#"{"b": 1.0, "a": "x"}"#);
        assert_eq!(digest, key.digest(br#"{"a":"x","b":1}"#));
        assert_ne!(digest, key.digest(br#"{"a":"x","b":2}"#));
        assert_ne!(digest, DigestKey::new(&[2; 32]).digest(br#"{"a":"x","b":1}"#));
        assert!(digest.starts_with(&format!("hmac-sha256:{}:", key.id())), "{digest}");
    }

    #[test]
    fn a_key_is_created_once_and_a_short_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digest.key");
        let key = DigestKey::read_or_create(&path).unwrap();
        assert_eq!(DigestKey::read_or_create(&path).unwrap().id(), key.id());
        assert!(!format!("{key:?}").contains(std::fs::read_to_string(&path).unwrap().trim()));
        private_files::replace(&path, b"short\n").unwrap();
        assert!(DigestKey::read_or_create(&path).unwrap_err().to_string().contains("has 5 bytes"));
        assert!(DigestKey::read(&path).unwrap_err().to_string().contains("has 5 bytes"));
    }
}
