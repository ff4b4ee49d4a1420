//! The key that signs access tokens. It lives in memory, and so do the tokens' worth: a restart ends both.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use serde::Serialize;

/// The signing key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system gave no randomness.
    #[error("cannot generate an ECDSA key")]
    Generate,
    /// The public key could not be described.
    #[error("cannot describe the public key")]
    Describe(#[from] jsonwebtoken::errors::Error),
}

pub(crate) struct SigningKey {
    private: EncodingKey,
    header: Header,
    public: JwkSet,
}

impl SigningKey {
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Generate)?;
        let private = EncodingKey::from_ec_der(pkcs8.as_ref());
        let mut jwk = Jwk::from_encoding_key(&private, Algorithm::ES256)?;
        // RFC 7638: the id follows from the key, so two keys never share one.
        let id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let mut header = Header::new(Algorithm::ES256);
        // RFC 9068 section 2.1, so that no other kind of token passes for an access token.
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(id);
        Ok(Self { private, header, public: JwkSet { keys: vec![jwk] } })
    }

    /// Signs an access token.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&self.header, claims, &self.private)
    }

    pub(crate) fn public(&self) -> &JwkSet {
        &self.public
    }
}
