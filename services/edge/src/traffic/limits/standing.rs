//! What a caller is told of a limit (draft-ietf-httpapi-ratelimit-headers-10).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    gcra::Answer,
    limit::{Ask, Limit},
};

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const MICROS_PER_SECOND: u64 = 1_000_000;

/// How a request stands with one limit.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    limit: Arc<Limit>,
    /// How many units can be taken now.
    pub(crate) remaining: u64,
    /// How long to wait, in microseconds: refused, for what was asked; admitted, for the bucket to be full.
    micros: u64,
}

impl Standing {
    pub(super) fn refused(ask: &Ask, answer: &Answer) -> Self {
        Self {
            limit: Arc::clone(&ask.limit),
            remaining: answer.remaining(0),
            micros: answer.wait_micros,
        }
    }

    pub(super) fn admitted(ask: &Ask, answer: &Answer) -> Self {
        Self {
            limit: Arc::clone(&ask.limit),
            remaining: answer.remaining(ask.cost),
            micros: answer.lack_micros + answer.quota.micros(ask.cost),
        }
    }

    /// The limit's name.
    pub(crate) fn limit(&self) -> &str {
        &self.limit.name
    }

    /// How long to wait, in whole seconds.
    pub(crate) fn seconds(&self) -> u64 {
        self.micros.div_ceil(MICROS_PER_SECOND)
    }

    /// How long to wait, in milliseconds.
    pub(crate) fn millis(&self) -> u64 {
        self.micros.div_ceil(1000)
    }

    /// Tells it in the headers of an answer.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.limit.policy.clone());
        let text = format!("\"{}\";r={};t={}", self.limit.name, self.remaining, self.seconds());
        headers.extend(HeaderValue::try_from(text).ok().map(|value| (RATE_LIMIT, value)));
    }
}
