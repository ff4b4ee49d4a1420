//! Subject tokens: the transaction token that a tool service was called with and presents for
//! exchange.

use drawbridge_proto::auth::v1 as pb;
use drawbridge_transport::transaction_token::{
    ALGORITHM, Actor, SubjectFacts, TOKEN_TYPE, TransactionClaims,
};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, errors::ErrorKind};

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

/// Why a transaction token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubjectTokenError {
    /// It has expired.
    #[error("the subject token has expired")]
    Expired,
    /// This auth service did not sign it.
    #[error("the subject token is not a transaction token of this auth service")]
    Foreign,
    /// It lacks attributes that policies read.
    #[error("the subject token omits groups and roles of its subject and cannot be exchanged")]
    Incomplete,
}

impl Minter {
    /// Verifies a transaction token of this service.
    pub(crate) fn verify(&self, token: &str) -> Result<SubjectToken, SubjectTokenError> {
        self.verify_with(token, true)
    }

    /// Verifies a transaction token of this service, but not its expiry.
    pub(crate) fn verify_ignoring_expiry(
        &self,
        token: &str,
    ) -> Result<SubjectToken, SubjectTokenError> {
        self.verify_with(token, false)
    }

    fn verify_with(
        &self,
        token: &str,
        validate_expiry: bool,
    ) -> Result<SubjectToken, SubjectTokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(SubjectTokenError::Foreign);
        }
        let header = decode_header(token).map_err(|_| SubjectTokenError::Foreign)?;
        if header.typ.as_deref() != Some(TOKEN_TYPE) || header.alg != ALGORITHM {
            return Err(SubjectTokenError::Foreign);
        }
        let published = self.published.load();
        let key = header
            .kid
            .as_ref()
            .and_then(|id| published.find(id))
            .ok_or(SubjectTokenError::Foreign)?;
        let key = DecodingKey::from_jwk(key).map_err(|_| SubjectTokenError::Foreign)?;
        let mut validation = Validation::new(ALGORITHM);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.validate_exp = validate_expiry;
        // Policies decide on the audience.
        validation.validate_aud = false;
        // The same clock issued it, so no leeway is needed.
        validation.leeway = 0;
        let claims = decode::<TransactionClaims>(token, &key, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => SubjectTokenError::Expired,
                _ => SubjectTokenError::Foreign,
            })?
            .claims;
        SubjectToken::from_claims(claims).ok_or(SubjectTokenError::Incomplete)
    }
}

impl SubjectToken {
    fn from_claims(claims: TransactionClaims) -> Option<Self> {
        let TransactionClaims { aud, sub, exp, txn, scope, tctx, act, .. } = claims;
        let SubjectFacts { groups, roles, email, mfa, workload, token_id, issued_at } =
            tctx.facts?;
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
