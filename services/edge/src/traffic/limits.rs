//! Rate limits, counted over all replicas.
//!
//! A request is charged to every limit that counts it or, if one of them rejects it, to none. The
//! buckets are in Redis; without it each replica has its own.

use std::sync::Arc;

use arc_swap::ArcSwap;
use drawbridge_config::edge::WithoutRedis;
use redis::RedisError;
use secrecy::SecretString;

use self::{gcra::BucketStatus, limit::Charge, local::LocalBuckets, shared::SharedBuckets};
use crate::metrics::RATE_LIMITED;

pub(crate) use self::{
    address::{ClientAddress, client_address},
    config::LimitRules,
    limit::{CalledTool, Subject, network_prefix},
    status::{RATE_LIMIT, RATE_LIMIT_POLICY, RateLimitStatus},
};

mod address;
mod config;
mod gcra;
mod limit;
mod local;
mod shared;
mod status;

#[derive(Debug)]
pub(crate) struct RateLimiter {
    rules: ArcSwap<LimitRules>,
    local: LocalBuckets,
    shared: Option<Arc<SharedBuckets>>,
}

/// Why the limits reject a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    /// A limit is exceeded.
    #[error("the rate limit {} is exceeded", .0.limit())]
    Exceeded(RateLimitStatus),
    /// The limit of this name rejects all requests while Redis is unavailable.
    #[error("the rate limit {0} cannot be checked")]
    Closed(String),
}

impl RateLimiter {
    /// A limiter without limits. Without Redis its limits count this replica alone.
    pub(crate) fn new(redis_url: Option<&SecretString>) -> Result<Self, RedisError> {
        Ok(Self {
            rules: ArcSwap::default(),
            local: LocalBuckets::new(),
            shared: redis_url.map(SharedBuckets::new).transpose()?.map(Arc::new),
        })
    }

    /// Replaces the limits. A limit that keeps its name keeps its buckets.
    pub(crate) async fn set(&self, rules: LimitRules) {
        if !rules.is_empty()
            && let Some(shared) = &self.shared
        {
            shared.start().await;
        }
        self.local.retain(|name| rules.contains(name));
        self.rules.store(Arc::new(rules));
    }

    /// Whether there are no limits.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.load().is_empty()
    }

    /// The name of a limit that rejects the requests of every caller while Redis is unavailable.
    pub(crate) fn closed_without_redis(&self) -> Option<String> {
        self.rules.load().closed_without_redis().map(str::to_owned)
    }

    /// Charges a request. Returns the status of the caller's own limit with the least remaining.
    ///
    /// # Errors
    /// When a limit rejects the request.
    pub(crate) async fn charge(
        &self,
        subject: &Subject<'_>,
    ) -> Result<Option<RateLimitStatus>, LimitError> {
        let (charges, timeout) = {
            let rules = self.rules.load();
            (rules.charges(subject), rules.redis_timeout)
        };
        if charges.is_empty() {
            return Ok(None);
        }
        let buckets = match &self.shared {
            None => self.local.take(&charges),
            Some(shared) => match shared.take(&charges, timeout).await {
                Some(buckets) => buckets,
                None => self.charge_without_redis(&charges)?,
            },
        };
        evaluate(&charges, &buckets)
    }

    fn charge_without_redis(&self, charges: &[Charge]) -> Result<Vec<BucketStatus>, LimitError> {
        match charges.iter().find(|charge| charge.limit.without_redis == WithoutRedis::Closed) {
            Some(charge) => Err(LimitError::Closed(charge.limit.name.clone())),
            None => Ok(self.local.take(charges)),
        }
    }
}

fn evaluate(
    charges: &[Charge],
    buckets: &[BucketStatus],
) -> Result<Option<RateLimitStatus>, LimitError> {
    let both = || charges.iter().zip(buckets);
    let mut longest: Option<(&Charge, &BucketStatus)> = None;
    for (charge, bucket) in both().filter(|(_, bucket)| bucket.wait_micros > 0) {
        RATE_LIMITED.with([charge.limit.name.clone().into()]).increment(1);
        if longest.is_none_or(|(_, longest)| longest.wait_micros < bucket.wait_micros) {
            longest = Some((charge, bucket));
        }
    }
    if let Some((charge, bucket)) = longest {
        return Err(LimitError::Exceeded(RateLimitStatus::rejected(charge, bucket)));
    }
    let own = both().filter(|(charge, _)| charge.limit.is_own());
    Ok(own
        .map(|(charge, bucket)| RateLimitStatus::admitted(charge, bucket))
        .min_by_key(|status| status.remaining))
}
