//! The status of a limit as a caller sees it (draft-ietf-httpapi-ratelimit-headers-10).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    gcra::BucketStatus,
    limit::{Charge, Limit},
};

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const MICROS_PER_SECOND: u64 = 1_000_000;

/// The status of one limit after a request.
#[derive(Clone, Debug)]
pub(crate) struct RateLimitStatus {
    limit: Arc<Limit>,
    /// The units that are available now.
    pub(crate) remaining: u64,
    /// How long to wait, in microseconds: after a rejection until the bucket holds the cost,
    /// otherwise until it is full.
    micros: u64,
}

impl RateLimitStatus {
    pub(super) fn rejected(charge: &Charge, bucket: &BucketStatus) -> Self {
        Self {
            limit: Arc::clone(&charge.limit),
            remaining: bucket.remaining(0),
            micros: bucket.wait_micros,
        }
    }

    pub(super) fn admitted(charge: &Charge, bucket: &BucketStatus) -> Self {
        Self {
            limit: Arc::clone(&charge.limit),
            remaining: bucket.remaining(charge.cost),
            micros: bucket.deficit_micros + bucket.quota.micros(charge.cost),
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

    /// Writes the headers of a response.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.limit.policy.clone());
        let text = format!("\"{}\";r={};t={}", self.limit.name, self.remaining, self.seconds());
        headers.extend(HeaderValue::try_from(text).ok().map(|value| (RATE_LIMIT, value)));
    }
}
