//! Transaction tokens that come back: a tool service shows the one that it was called with.

use drawbridge_proto::auth::v1 as pb;
use drawbridge_sdk::identity::{ALGORITHM, Actor, Facts, TOKEN_TYPE, TransactionClaims};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, errors::ErrorKind};

use super::Minter;
use crate::{Identity, authn::Token};

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A call that a tool service was made.
#[derive(Debug)]
pub(crate) struct Called {
    /// In whose name. It ends with the transaction token; everything else is that of the token that was shown first.
    pub(crate) token: Token,
    /// The tool service.
    pub(crate) service: String,
    /// The id of the request that caused it.
    pub(crate) txn: String,
    /// Who called, if it was not the subject itself.
    pub(crate) act: Option<Box<Actor>>,
}

/// Why no call is known by a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CalledError {
    /// Its time is over.
    #[error("the subject token has expired")]
    Expired,
    /// This service has not signed it.
    #[error("the subject token is no transaction token of this auth service")]
    Foreign,
    /// It leaves out what policies would read.
    #[error("the subject token says too little of its subject to be exchanged")]
    Reticent,
}

impl Minter {
    /// Reads a transaction token that was signed here and is still good.
    pub(crate) fn read(&self, token: &str) -> Result<Called, CalledError> {
        self.read_as(token, true)
    }

    /// Reads a transaction token that was signed here, though its time may be over.
    pub(crate) fn recall(&self, token: &str) -> Result<Called, CalledError> {
        self.read_as(token, false)
    }

    fn read_as(&self, token: &str, in_time: bool) -> Result<Called, CalledError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(CalledError::Foreign);
        }
        let header = decode_header(token).map_err(|_| CalledError::Foreign)?;
        if header.typ.as_deref() != Some(TOKEN_TYPE) || header.alg != ALGORITHM {
            return Err(CalledError::Foreign);
        }
        let published = self.published.load();
        let key =
            header.kid.as_ref().and_then(|id| published.find(id)).ok_or(CalledError::Foreign)?;
        let key = DecodingKey::from_jwk(key).map_err(|_| CalledError::Foreign)?;
        let mut validation = Validation::new(ALGORITHM);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.validate_exp = in_time;
        // Whom it is for is for the policies to say.
        validation.validate_aud = false;
        // Its time was measured by the clock that measures it now.
        validation.leeway = 0;
        let claims = decode::<TransactionClaims>(token, &key, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => CalledError::Expired,
                _ => CalledError::Foreign,
            })?
            .claims;
        Called::of(claims).ok_or(CalledError::Reticent)
    }
}

impl Called {
    fn of(claims: TransactionClaims) -> Option<Self> {
        let TransactionClaims { aud, sub, exp, txn, scope, tctx, act, .. } = claims;
        let Facts { groups, roles, email, mfa, workload, token_id, issued_at } = tctx.facts?;
        let principal = pb::Principal {
            issuer: tctx.iss,
            subject: sub,
            client_id: tctx.client_id,
            tenant: tctx.tenant.unwrap_or_default(),
            scopes: scope.split_whitespace().map(ToOwned::to_owned).collect(),
            ..pb::Principal::default()
        };
        let identity = Identity { principal, groups, roles, email, mfa, workload };
        let token = Token { identity, id: token_id, issued_at, expires_at: exp.try_into().ok()? };
        Some(Self { token, service: aud, txn, act })
    }
}
