//! A cache of rejected tokens: presenting one again costs a lookup rather than a signature check.

use std::time::{Duration, Instant};

use moka::sync::Cache;

use super::TokenError;

/// The maximum time for opaque tokens, because their issuer may change its result.
const OPAQUE_FOR: Duration = Duration::from_secs(10);

/// How rejected tokens are cached, by digest.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Refused tokens")]
pub struct RefusedTokensConfig {
    /// How many rejected tokens are cached. 0: none.
    #[arg(long, value_name = "TOKENS", default_value_t = 10_000)]
    pub refused_tokens_max: u64,

    /// How long a rejected token is cached, in seconds. A change of its issuer's keys evicts it at
    /// once.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    pub refused_token_seconds: u32,
}

impl Default for RefusedTokensConfig {
    fn default() -> Self {
        drawbridge_runtime::parse_defaults(&[])
    }
}

#[derive(Clone, Debug)]
struct RefusedToken {
    error: TokenError,
    epoch: u64,
    until: Instant,
}

/// Recently rejected tokens.
#[derive(Debug)]
pub(super) struct RefusedTokens {
    by_digest: Cache<[u8; 32], RefusedToken>,
    ttl: Duration,
}

impl RefusedTokens {
    pub(super) fn new(config: &RefusedTokensConfig) -> Self {
        let ttl = Duration::from_secs(config.refused_token_seconds.into());
        let by_digest =
            Cache::builder().max_capacity(config.refused_tokens_max).time_to_live(ttl).build();
        Self { by_digest, ttl }
    }

    /// Why the token with this digest was rejected in this epoch of the issuers' keys.
    pub(super) fn get(&self, key: &[u8; 32], epoch: u64) -> Option<TokenError> {
        let refused = self.by_digest.get(key)?;
        (refused.epoch == epoch && Instant::now() < refused.until).then_some(refused.error)
    }

    /// Caches why a token was rejected, unless it may become valid later.
    pub(super) fn put(&self, key: [u8; 32], error: &TokenError, is_opaque: bool, epoch: u64) {
        if error.is_transient() {
            return;
        }
        let ttl = if is_opaque { self.ttl.min(OPAQUE_FOR) } else { self.ttl };
        let refused = RefusedToken { error: error.clone(), epoch, until: Instant::now() + ttl };
        self.by_digest.insert(key, refused);
    }
}
