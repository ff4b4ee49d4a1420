//! Subject tokens: the transaction token that a tool service was called with and presents for
//! exchange.

use drawbridge_proto::auth::v1 as pb;
use drawbridge_transport::transaction_token::{
    ALGORITHM, Actor, SubjectFacts, TOKEN_TYPE, TransactionClaims,
};
use jsonwebtoken::{
    DecodingKey, Validation, dangerous::insecure_decode, decode, decode_header, errors::ErrorKind,
};

use super::Minter;
use crate::{Identity, authn::AccessToken};

/// The longest token that is parsed, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A verified transaction token: one call of a tool service.
#[derive(Debug)]
pub(crate) struct SubjectToken {
    /// The subject. It expires with the transaction token; all else is from the original access
    /// token.
    pub(crate) token: AccessToken,
    /// The called tool service.
    pub(crate) service: String,
    /// The id of the request that started the call chain.
    pub(crate) txn: String,
    /// The calling service, if the subject did not call directly.
    pub(crate) act: Option<Box<Actor>>,
}

/// Whom a transaction token names, whether or not it has expired.
#[derive(Debug)]
pub(crate) struct NamedCaller {
    /// The subject, without the attributes that are missing in the token.
    pub(crate) token: AccessToken,
    /// Whether a known key signed it.
    pub(crate) is_verified: bool,
}

/// Why a transaction token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubjectTokenError {
    /// It has expired.
    #[error("the subject token has expired")]
    Expired,
    /// No replica of this auth service signed it.
    #[error("the subject token is not a transaction token of this auth service")]
    Foreign,
    /// It lacks attributes that policies read.
    #[error("the subject token omits groups and roles of its subject and cannot be exchanged")]
    Incomplete,
}

impl Minter {
    /// Verifies a transaction token of this service, that is of any of its replicas.
    pub(crate) fn verify(&self, token: &str) -> Result<SubjectToken, SubjectTokenError> {
        let mut claims = self.verified_claims(token, true)?;
        let facts = claims.tctx.facts.take().ok_or(SubjectTokenError::Incomplete)?;
        SubjectToken::new(claims, facts).ok_or(SubjectTokenError::Foreign)
    }

    /// Whom a transaction token of this service names. `None` for any other token.
    pub(crate) fn named_caller(&self, token: &str) -> Option<NamedCaller> {
        let (mut claims, is_verified) = match self.verified_claims(token, false) {
            Ok(claims) => (claims, true),
            Err(_) => (self.unverified_claims(token)?, false),
        };
        let facts = claims.tctx.facts.take().unwrap_or_default();
        let token = SubjectToken::new(claims, facts)?.token;
        Some(NamedCaller { token, is_verified })
    }

    fn verified_claims(
        &self,
        token: &str,
        validate_expiry: bool,
    ) -> Result<TransactionClaims, SubjectTokenError> {
        let kid = check_header(token)?;
        let published = self.keyring.published();
        let key = published.find(&kid).ok_or(SubjectTokenError::Foreign)?;
        let key = DecodingKey::from_jwk(key).map_err(|_| SubjectTokenError::Foreign)?;
        let mut validation = Validation::new(ALGORITHM);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.validate_exp = validate_expiry;
        // Policies decide on the audience.
        validation.validate_aud = false;
        // It is at most as valid here as where it was signed: leeway would extend it.
        validation.leeway = 0;
        let decoded = decode(token, &key, &validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => SubjectTokenError::Expired,
            _ => SubjectTokenError::Foreign,
        });
        Ok(decoded?.claims)
    }

    fn unverified_claims(&self, token: &str) -> Option<TransactionClaims> {
        check_header(token).ok()?;
        let claims = insecure_decode::<TransactionClaims>(token).ok()?.claims;
        (claims.iss == self.issuer).then_some(claims)
    }
}

/// Checks the header of a transaction token, and returns the id of its key.
fn check_header(token: &str) -> Result<String, SubjectTokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(SubjectTokenError::Foreign);
    }
    let header = decode_header(token).map_err(|_| SubjectTokenError::Foreign)?;
    if header.typ.as_deref() != Some(TOKEN_TYPE) || header.alg != ALGORITHM {
        return Err(SubjectTokenError::Foreign);
    }
    header.kid.ok_or(SubjectTokenError::Foreign)
}

impl SubjectToken {
    fn new(claims: TransactionClaims, facts: SubjectFacts) -> Option<Self> {
        let TransactionClaims { aud, sub, exp, txn, scope, tctx, act, .. } = claims;
        let SubjectFacts { groups, roles, email, mfa, workload, token_id, issued_at } = facts;
        let principal = pb::Principal {
            issuer: tctx.iss,
            subject: sub,
            client_id: tctx.client_id,
            tenant: tctx.tenant.unwrap_or_default(),
            scopes: scope.split_whitespace().map(ToOwned::to_owned).collect(),
            ..pb::Principal::default()
        };
        let identity = Identity { principal, groups, roles, email, mfa, workload };
        let token =
            AccessToken { identity, id: token_id, issued_at, expires_at: exp.try_into().ok()? };
        Some(Self { token, service: aud, txn, act })
    }
}
