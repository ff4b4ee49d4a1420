//! Who is calling, by tokens from outside. The only place that knows issuers and what their tokens look like.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1 as pb;
use jsonwebtoken::get_current_timestamp;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use self::token::Shape;

pub use self::file::IssuersFileError;
pub(crate) use self::{audience::Audience, error::TokenError, file::Given, issuers::Issuers};

mod audience;
mod claims;
mod error;
mod file;
mod introspection;
mod issuer;
mod issuers;
mod mapping;
mod preset;
#[cfg(test)]
mod tests;
mod token;

const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How many verified tokens are remembered, and for how long at most.
const VERIFIED_MAX: u64 = 10_000;
const VERIFIED_FOR: Duration = Duration::from_secs(3600);

/// An authenticated caller, as its token tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) principal: pb::Principal,
    pub(crate) groups: Vec<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) email: Option<String>,
    /// Whether the person showed more than one factor.
    pub(crate) mfa: bool,
    /// A program that calls in its own name, rather than a person.
    pub(crate) workload: bool,
    /// The token's `jti`.
    pub(crate) token_id: Option<String>,
    /// When the token was issued, in seconds since 1970.
    pub(crate) issued_at: Option<u64>,
    /// When the token ends, in seconds since 1970.
    pub(crate) expires_at: u64,
}

/// A token that was found good.
#[derive(Clone, Debug)]
struct Verified {
    identity: Arc<Identity>,
    until: Instant,
    /// What [`Issuers::epoch`] was before it was looked at.
    epoch: u64,
}

/// Verifies the tokens of all issuers for one audience.
#[derive(Debug)]
pub(crate) struct TokenVerifier {
    issuers: Arc<Issuers>,
    audience: Audience,
    /// Tokens that were found good, by their digest: a client shows the same one with each call.
    verified: Cache<[u8; 32], Verified>,
}

impl TokenVerifier {
    pub(crate) fn new(issuers: Arc<Issuers>, audience: Audience) -> Self {
        let verified = Cache::builder().max_capacity(VERIFIED_MAX).time_to_live(VERIFIED_FOR).build();
        Self { issuers, audience, verified }
    }

    /// Verifies a token for `resource`, and says whose it is. A token for an endpoint serves what is below it
    /// too, and never what is above or beside it.
    pub(crate) async fn verify(&self, token: &str, resource: &str) -> Result<Arc<Identity>, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let key = digest(token, resource);
        // Read first: what changes while the token is looked at makes the finding worth nothing.
        let epoch = self.issuers.epoch();
        if let Some(verified) = self.verified.get(&key)
            && verified.epoch == epoch
            && Instant::now() < verified.until
        {
            return Ok(verified.identity);
        }
        let (identity, remember_until) = self.verify_anew(token, resource).await?;
        let (identity, left) = (Arc::new(identity), Instant::now());
        let left = left + Duration::from_secs(identity.expires_at.saturating_sub(get_current_timestamp()));
        let verified = Verified { identity: Arc::clone(&identity), until: left.min(remember_until), epoch };
        self.verified.insert(key, verified);
        Ok(identity)
    }

    /// The identity, and until when it may be remembered, if the token does not end before.
    async fn verify_anew(&self, token: &str, resource: &str) -> Result<(Identity, Instant), TokenError> {
        match Shape::of(token)? {
            Shape::Jwt(jwt) => {
                let issuer = self.issuers.of(jwt.issuer()?).ok_or(TokenError::Issuer)?;
                let audiences = self.audience.acceptable(issuer.audiences(), resource);
                issuer.verify(&jwt, &audiences).await
            }
            Shape::Opaque => {
                // Nothing says who issued it. So at most one issuer is asked, and no other gets to see it.
                let issuer = self.issuers.introspecting().ok_or(TokenError::Malformed)?;
                let audiences = self.audience.acceptable(issuer.audiences(), resource);
                issuer.introspect(token, &audiences).await
            }
        }
    }
}

fn digest(token: &str, resource: &str) -> [u8; 32] {
    Sha256::new().chain_update(resource).chain_update(b"\0").chain_update(token).finalize().into()
}
