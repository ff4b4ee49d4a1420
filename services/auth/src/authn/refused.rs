//! Tokens that are not good and will not be: to show one again costs a look-up, and no signature check.

use std::time::{Duration, Instant};

use moka::sync::Cache;

use super::TokenError;

/// What an opaque token means its issuer may change.
const OPAQUE_FOR: Duration = Duration::from_secs(10);

/// How tokens that are not good are remembered, by their digests.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Refused tokens")]
pub struct RefusedTokensConfig {
    /// How many refused tokens are remembered. 0: none.
    #[arg(long, value_name = "TOKENS", default_value_t = 10_000)]
    pub refused_tokens_max: u64,

    /// For how long a refused token is remembered, in seconds. It is forgotten at once when its issuer's keys change.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub refused_token_seconds: u32,
}

impl Default for RefusedTokensConfig {
    fn default() -> Self {
        Self { refused_tokens_max: 10_000, refused_token_seconds: 60 }
    }
}

#[derive(Clone, Debug)]
struct Refused {
    error: TokenError,
    epoch: u64,
    until: Instant,
}

/// Tokens that were refused of late.
#[derive(Debug)]
pub(super) struct RefusedTokens {
    by_digest: Cache<[u8; 32], Refused>,
    lasts: Duration,
}

impl RefusedTokens {
    pub(super) fn new(config: &RefusedTokensConfig) -> Self {
        let lasts = Duration::from_secs(config.refused_token_seconds.into());
        let by_digest =
            Cache::builder().max_capacity(config.refused_tokens_max).time_to_live(lasts).build();
        Self { by_digest, lasts }
    }

    /// Why the token of this digest was refused in this epoch of the issuers' keys.
    pub(super) fn get(&self, key: &[u8; 32], epoch: u64) -> Option<TokenError> {
        let refused = self.by_digest.get(key)?;
        (refused.epoch == epoch && Instant::now() < refused.until).then_some(refused.error)
    }

    /// Notes why a token was refused, unless it may be good later.
    pub(super) fn put(&self, key: [u8; 32], error: &TokenError, is_opaque: bool, epoch: u64) {
        if error.may_heal() {
            return;
        }
        let lasts = if is_opaque { self.lasts.min(OPAQUE_FOR) } else { self.lasts };
        let refused = Refused { error: error.clone(), epoch, until: Instant::now() + lasts };
        self.by_digest.insert(key, refused);
    }
}
