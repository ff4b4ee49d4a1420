//! Authentication with external tokens. Only this module knows issuers and their token formats.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1 as pb;
use jsonwebtoken::get_current_timestamp;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use self::{refused::RefusedTokens, token::TokenFormat};

pub use self::file::{IssuersFileError, check as check_issuers};
pub use self::refused::RefusedTokensConfig;
pub use self::seen::SeenConfig;
pub(crate) use self::{
    audience::Audience, error::TokenError, file::IssuerFlags, introspection::ClientNetwork,
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
/// How many verified tokens are cached, and for how long at most.
const VERIFIED_MAX: u64 = 10_000;
const VERIFIED_FOR: Duration = Duration::from_secs(3600);

/// An authenticated caller as its token describes it. Policies see this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Issuer, subject, client, tenant and scopes.
    pub principal: pb::Principal,
    /// Groups in the token.
    pub groups: Vec<String>,
    /// Roles in the token.
    pub roles: Vec<String>,
    /// The user's email address.
    pub email: Option<String>,
    /// Whether the user authenticated with more than one factor.
    pub mfa: bool,
    /// Whether the caller is a program that acts on its own behalf rather than a person.
    pub workload: bool,
}

/// A valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessToken {
    /// The caller that the token authenticates.
    pub(crate) identity: Identity,
    /// Its `jti`.
    pub(crate) id: Option<String>,
    /// When it was issued, in seconds since 1970.
    pub(crate) issued_at: Option<u64>,
    /// When it expires, in seconds since 1970.
    pub(crate) expires_at: u64,
}

/// A verified token in the cache.
#[derive(Clone, Debug)]
struct CachedToken {
    token: Arc<AccessToken>,
    until: Instant,
    /// The value of [`Issuers::epoch`] before verification.
    epoch: u64,
}

/// Verifies the tokens of all issuers for one audience.
#[derive(Debug)]
pub(crate) struct TokenVerifier {
    issuers: Arc<Issuers>,
    audience: Audience,
    /// Verified tokens by digest: a client sends the same token with each call.
    verified: Cache<[u8; 32], CachedToken>,
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

    /// Verifies a token for `resource` that a client in `network` sent, and returns its caller. A
    /// token for an endpoint is also valid for paths below it, but never for paths above or beside
    /// it.
    pub(crate) async fn verify(
        &self,
        token: &str,
        resource: &str,
        network: Option<ClientNetwork>,
    ) -> Result<Arc<AccessToken>, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let key = digest(token, resource);
        // Read first: a change during verification makes the result stale.
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
        let format = TokenFormat::parse(token);
        let is_opaque = matches!(format, Ok(TokenFormat::Opaque));
        let verified = match format {
            Ok(format) => self.verify_uncached(format, token, resource, network, epoch).await,
            Err(error) => Err(error),
        };
        match verified {
            Ok((token, cacheable_until)) => {
                let left =
                    Duration::from_secs(token.expires_at.saturating_sub(get_current_timestamp()));
                let (token, until) = (Arc::new(token), cacheable_until.min(Instant::now() + left));
                self.issuers.seen().record(&token);
                self.verified.insert(key, CachedToken { token: Arc::clone(&token), until, epoch });
                Ok(token)
            }
            Err(error) => {
                if !error.is_unavailable() {
                    // Once per token, not each time that a client sends it.
                    tracing::info!(reason = %error, "rejected an access token");
                }
                self.refused.put(key, &error, is_opaque, epoch);
                Err(error)
            }
        }
    }

    /// Verifies a token that is not cached. The instant is when the result must be discarded, if
    /// the token does not expire earlier.
    async fn verify_uncached(
        &self,
        format: TokenFormat<'_>,
        token: &str,
        resource: &str,
        network: Option<ClientNetwork>,
        epoch: u64,
    ) -> Result<(AccessToken, Instant), TokenError> {
        match format {
            TokenFormat::Jwt(jwt) => {
                let issuer = self.issuers.get(jwt.issuer()?).ok_or(TokenError::Issuer)?;
                let audiences = self.audience.acceptable(issuer.audiences(), resource);
                issuer.verify(&jwt, &audiences).await.inspect_err(|error| issuer.log_failure(error))
            }
            TokenFormat::Opaque => {
                // An opaque token does not name its issuer. At most one issuer is asked; no other
                // sees it.
                let issuer = self.issuers.introspection_issuer().ok_or(TokenError::Malformed)?;
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
