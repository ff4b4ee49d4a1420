//! Token formats, before anything in a token is trusted.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, errors::ErrorKind};
use serde::de::IgnoredAny;

use super::{TokenError, claims::Claims};

/// Algorithms that may sign an access token: asymmetric ones only (RFC 8725 section 3.1).
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

/// The format of a token.
pub(super) enum TokenFormat<'a> {
    /// A signed JWT.
    Jwt(Box<Jwt<'a>>),
    /// A string that only its issuer can interpret.
    Opaque,
}

/// An unverified JWT.
pub(super) struct Jwt<'a> {
    token: &'a str,
    pub(super) header: Header,
    pub(super) claims: Claims,
}

impl<'a> TokenFormat<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !token.bytes().all(is_token) {
            return Err(TokenError::Malformed);
        }
        let mut parts = token.split('.');
        let header = parts.next().unwrap_or_default().trim_end_matches('=');
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).ok();
        // A token that starts with a JSON object is a JWT and never opaque: another issuer's JWT is
        // not introspected.
        let is_object = |header: &Vec<u8>| {
            serde_json::from_slice::<HashMap<String, IgnoredAny>>(header).is_ok()
        };
        let Some(header) = header.filter(is_object) else { return Ok(Self::Opaque) };
        Claims::parse(&header).map_err(|_| TokenError::Malformed)?;
        // An unknown algorithm, such as `none`, fails to parse.
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
    /// The issuer that the token claims.
    pub(super) fn issuer(&self) -> Result<&str, TokenError> {
        self.claims.text("iss")?.ok_or(TokenError::Claims)
    }

    /// Checks the header, and returns the id of the signing key.
    pub(super) fn check_header(&self, algorithms: &[Algorithm]) -> Result<&str, TokenError> {
        let header = &self.header;
        if !algorithms.contains(&header.alg) {
            return Err(TokenError::Header("algorithm"));
        }
        // No critical extension is supported (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err(TokenError::Header("critical extension"));
        }
        if header.enc.is_some() || header.zip.is_some() {
            return Err(TokenError::Header("encryption"));
        }
        // Keys come only from the issuer's key set; `jku`, `x5u`, `x5c` and `jwk` are ignored.
        header.kid.as_deref().ok_or(TokenError::Header("missing key id"))
    }

    /// Verifies the signature only. Claims are checked the same way as for introspected tokens.
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
