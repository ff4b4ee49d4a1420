//! The signing key of access tokens. Without a state file it is lost at exit, and its tokens become
//! invalid.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use secrecy::SecretString;
use serde::Serialize;

/// The signing key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system provides no randomness.
    #[error("cannot generate an ECDSA key")]
    Generate,
    /// The stored key is invalid.
    #[error("not an ECDSA key of the curve P-256")]
    Read,
    /// The public key cannot be exported.
    #[error("cannot export the public key")]
    Describe(#[from] jsonwebtoken::errors::Error),
}

pub(crate) struct SigningKey {
    private: EncodingKey,
    header: Header,
    public: JwkSet,
    /// The key as stored in a state file.
    saved: SecretString,
}

impl SigningKey {
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| KeyError::Generate)?;
        Self::new(pkcs8.as_ref())
    }

    /// Parses a key from [`Self::saved`].
    pub(crate) fn read(saved: &str) -> Result<Self, KeyError> {
        let pkcs8 = BASE64_STANDARD.decode(saved).map_err(|_| KeyError::Read)?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
            .map_err(|_| KeyError::Read)?;
        Self::new(&pkcs8)
    }

    fn new(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let private = EncodingKey::from_ec_der(pkcs8);
        let mut jwk = Jwk::from_encoding_key(&private, Algorithm::ES256)?;
        // RFC 7638: the id is derived from the key, so it is unique.
        let id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let mut header = Header::new(Algorithm::ES256);
        // RFC 9068 section 2.1: other kinds of tokens must not be accepted as access tokens.
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(id);
        let saved = BASE64_STANDARD.encode(pkcs8).into();
        Ok(Self { private, header, public: JwkSet { keys: vec![jwk] }, saved })
    }

    /// The key as text, for a state file.
    pub(crate) fn saved(&self) -> &SecretString {
        &self.saved
    }

    /// Signs an access token.
    pub(crate) fn sign(
        &self,
        claims: &impl Serialize,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&self.header, claims, &self.private)
    }

    pub(crate) fn public(&self) -> &JwkSet {
        &self.public
    }
}
