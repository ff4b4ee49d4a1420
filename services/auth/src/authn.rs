//! Who is calling, by tokens from outside. The only place that knows issuers and what their tokens look like.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1 as pb;
use jsonwebtoken::get_current_timestamp;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use self::{refused::RefusedTokens, token::Shape};

pub use self::file::IssuersFileError;
pub use self::refused::RefusedTokensConfig;
pub use self::seen::SeenConfig;
pub(crate) use self::{
    audience::Audience, error::TokenError, file::Given, introspection::ClientNetwork,
    issuers::Issuers,
};

mod audience;
mod claims;
mod error;
mod file;
mod introspection;
mod issuer;
mod issuers;
mod mapping;
mod preset;
mod refused;
mod seen;
mod tenants;
#[cfg(test)]
mod tests;
mod token;

const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How many verified tokens are remembered, and for how long at most.
const VERIFIED_MAX: u64 = 10_000;
const VERIFIED_FOR: Duration = Duration::from_secs(3600);

/// An authenticated caller, as its token tells of it: what policies see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Issuer, subject, client, tenant and scopes.
    pub principal: pb::Principal,
    /// Groups that the token names.
    pub groups: Vec<String>,
    /// Roles that the token names.
    pub roles: Vec<String>,
    /// The person's address.
    pub email: Option<String>,
    /// Whether the person showed more than one factor.
    pub mfa: bool,
    /// A program that calls in its own name, rather than a person.
    pub workload: bool,
}

/// A token that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Whose it is.
    pub(crate) identity: Identity,
    /// Its `jti`.
    pub(crate) id: Option<String>,
    /// When it was issued, in seconds since 1970.
    pub(crate) issued_at: Option<u64>,
    /// When it ends, in seconds since 1970.
    pub(crate) expires_at: u64,
}

/// A token that was found good.
#[derive(Clone, Debug)]
struct Verified {
    token: Arc<Token>,
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
    refused: RefusedTokens,
}

impl TokenVerifier {
    pub(crate) fn new(
        issuers: Arc<Issuers>,
        audience: Audience,
        refused: &RefusedTokensConfig,
    ) -> Self {
        let verified =
            Cache::builder().max_capacity(VERIFIED_MAX).time_to_live(VERIFIED_FOR).build();
        Self { issuers, audience, verified, refused: RefusedTokens::new(refused) }
    }

    /// Verifies a token for `resource` that is shown from `network`, and says whose it is. A token for an endpoint
    /// serves what is below it too, and never what is above or beside it.
    pub(crate) async fn verify(
        &self,
        token: &str,
        resource: &str,
        network: Option<ClientNetwork>,
    ) -> Result<Arc<Token>, TokenError> {
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
            return Ok(verified.token);
        }
        if let Some(error) = self.refused.get(&key, epoch) {
            return Err(error);
        }
        let shape = Shape::of(token);
        let is_opaque = matches!(shape, Ok(Shape::Opaque));
        let verified = match shape {
            Ok(shape) => self.verify_anew(shape, token, resource, network, epoch).await,
            Err(error) => Err(error),
        };
        match verified {
            Ok((token, remember_until)) => {
                let left =
                    Duration::from_secs(token.expires_at.saturating_sub(get_current_timestamp()));
                let (token, until) = (Arc::new(token), remember_until.min(Instant::now() + left));
                self.issuers.seen().note(&token);
                self.verified.insert(key, Verified { token: Arc::clone(&token), until, epoch });
                Ok(token)
            }
            Err(error) => {
                if !error.is_unavailable() {
                    // Once, and not each time that it is shown.
                    tracing::info!(reason = %error, "an access token is not accepted");
                }
                self.refused.put(key, &error, is_opaque, epoch);
                Err(error)
            }
        }
    }

    /// What it says, and until when it may be remembered, if the token does not end before.
    async fn verify_anew(
        &self,
        shape: Shape<'_>,
        token: &str,
        resource: &str,
        network: Option<ClientNetwork>,
        epoch: u64,
    ) -> Result<(Token, Instant), TokenError> {
        match shape {
            Shape::Jwt(jwt) => {
                let issuer = self.issuers.of(jwt.issuer()?).ok_or(TokenError::Issuer)?;
                let audiences = self.audience.acceptable(issuer.audiences(), resource);
                issuer.verify(&jwt, &audiences).await.inspect_err(|error| issuer.log_failure(error))
            }
            Shape::Opaque => {
                // Nothing says who issued it. So at most one issuer is asked, and no other gets to see it.
                let issuer = self.issuers.introspecting().ok_or(TokenError::Malformed)?;
                let audiences = self.audience.acceptable(issuer.audiences(), resource);
                let token = issuer.introspect(token, &audiences, network, epoch).await;
                token.inspect_err(|error| issuer.log_failure(error))
            }
        }
    }
}

fn digest(token: &str, resource: &str) -> [u8; 32] {
    Sha256::new().chain_update(resource).chain_update(b"\0").chain_update(token).finalize().into()
}
