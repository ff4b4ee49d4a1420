//! What a token looks like, before anything in it is believed.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, errors::ErrorKind};
use serde::de::IgnoredAny;

use super::{TokenError, claims::Claims};

/// Algorithms that may sign an access token: asymmetric ones alone (RFC 8725 section 3.1).
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];

/// What a token looks like.
pub(super) enum Shape<'a> {
    /// A signed JWT.
    Jwt(Box<Jwt<'a>>),
    /// A text that means something to its issuer alone.
    Opaque,
}

/// A JWT of which nothing is verified yet.
pub(super) struct Jwt<'a> {
    token: &'a str,
    pub(super) header: Header,
    pub(super) claims: Claims,
}

impl<'a> Shape<'a> {
    pub(super) fn of(token: &'a str) -> Result<Self, TokenError> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !token.bytes().all(is_token) {
            return Err(TokenError::Malformed);
        }
        let mut parts = token.split('.');
        let header = parts.next().unwrap_or_default().trim_end_matches('=');
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).ok();
        // What begins with an object is a JWT and never opaque: another issuer's JWT is not sent to be introspected.
        let is_object = |header: &Vec<u8>| {
            serde_json::from_slice::<HashMap<String, IgnoredAny>>(header).is_ok()
        };
        let Some(header) = header.filter(is_object) else { return Ok(Self::Opaque) };
        Claims::parse(&header).map_err(|_| TokenError::Malformed)?;
        // An unknown algorithm, such as `none`, is no header.
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        let (Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Malformed);
        };
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Malformed)?;
        let claims = Claims::parse(&claims).map_err(|_| TokenError::Malformed)?;
        Ok(Self::Jwt(Box::new(Jwt { token, header, claims })))
    }
}

impl Jwt<'_> {
    /// Who is said to have issued it.
    pub(super) fn issuer(&self) -> Result<&str, TokenError> {
        self.claims.text("iss")?.ok_or(TokenError::Claims)
    }

    /// Looks at the header, and returns the id of the key that is said to have signed.
    pub(super) fn check_header(&self, algorithms: &[Algorithm]) -> Result<&str, TokenError> {
        let header = &self.header;
        if !algorithms.contains(&header.alg) {
            return Err(TokenError::Header("algorithm"));
        }
        // Nothing is understood that would have to be (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err(TokenError::Header("critical extension"));
        }
        if header.enc.is_some() || header.zip.is_some() {
            return Err(TokenError::Header("encryption"));
        }
        // Keys come from the issuer's key set alone; `jku`, `x5u`, `x5c` and `jwk` are never looked at.
        header.kid.as_deref().ok_or(TokenError::Header("missing key id"))
    }

    /// Verifies the signature and nothing else: what the claims mean is the same for a token that is introspected.
    pub(super) fn verify_signature(&self, key: &DecodingKey) -> Result<(), TokenError> {
        let mut validation = Validation::new(self.header.alg);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        match decode::<IgnoredAny>(self.token, key, &validation) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                Err(TokenError::Signature)
            }
            Err(_) => Err(TokenError::Malformed),
        }
    }
}
