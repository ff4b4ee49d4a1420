//! Buckets in this process, for use without Redis and while it is unavailable.
//!
//! No library's limiter charges several limits atomically.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    gcra::BucketStatus,
    limit::{BucketKey, Charge},
};

/// How many buckets one limit has at most. Further callers share the overflow bucket.
const BUCKETS_MAX: usize = 100_000;
/// How often full buckets are removed, in microseconds.
const SWEEP_MICROS: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct LocalBuckets {
    started: Instant,
    /// The buckets of each limit, by its name.
    limits: Mutex<HashMap<String, Buckets>>,
}

#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<BucketKey, u64>,
    swept_at: u64,
}

impl Buckets {
    /// The bucket to charge.
    fn find(&mut self, bucket: BucketKey, now: u64, max: usize) -> BucketKey {
        if self.full_at.len() < max || self.full_at.contains_key(&bucket) {
            return bucket;
        }
        if now >= self.swept_at + SWEEP_MICROS {
            // A full bucket equals an absent one.
            self.full_at.retain(|_, full_at| *full_at > now);
            self.swept_at = now;
        }
        if self.full_at.len() < max { bucket } else { BucketKey::OVERFLOW }
    }
}

impl LocalBuckets {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), limits: Mutex::default() }
    }

    /// Charges this replica's share of every limit, or of none.
    pub(super) fn take(&self, charges: &[Charge]) -> Vec<BucketStatus> {
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.take_at(charges, now, BUCKETS_MAX)
    }

    pub(super) fn take_at(&self, charges: &[Charge], now: u64, max: usize) -> Vec<BucketStatus> {
        let mut limits = self.limits();
        let mut keys = Vec::with_capacity(charges.len());
        let mut statuses = Vec::with_capacity(charges.len());
        for charge in charges {
            let name = charge.limit.name.as_str();
            if !limits.contains_key(name) {
                limits.insert(name.to_owned(), Buckets::default());
            }
            let Some(buckets) = limits.get_mut(name) else { continue };
            let bucket = buckets.find(charge.bucket, now, max);
            let full_at = buckets.full_at.get(&bucket).copied().unwrap_or(now);
            statuses.push(charge.limit.share.check(full_at, now, charge.cost));
            keys.push(bucket);
        }
        if statuses.iter().all(|status| status.wait_micros == 0) {
            for ((charge, bucket), status) in charges.iter().zip(keys).zip(&statuses) {
                let full_at = now + status.deficit_micros + status.quota.micros(charge.cost);
                if let Some(buckets) = limits.get_mut(charge.limit.name.as_str()) {
                    buckets.full_at.insert(bucket, full_at);
                }
            }
        }
        statuses
    }

    /// Removes the buckets of limits that no longer exist.
    pub(super) fn retain(&self, is_limit: impl Fn(&str) -> bool) {
        self.limits().retain(|name, _| is_limit(name));
    }

    fn limits(&self) -> MutexGuard<'_, HashMap<String, Buckets>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use drawbridge_proto::auth::v1::Principal;

    use super::*;
    use crate::traffic::limits::{config::tests::rules, limit::Subject};

    const TWO: &str = r#"
        [[limit]]
        name = "narrow"
        by = "principal"
        rate = 1
        [[limit]]
        name = "wide"
        by = "global"
        rate = 3
    "#;

    fn waits(local: &LocalBuckets, text: &str, subject: &str, now: u64, max: usize) -> Vec<u64> {
        let principal = Principal { subject: subject.into(), ..Default::default() };
        let charges = rules(text).charges(&Subject::Caller { principal: &principal, tool: None });
        local.take_at(&charges, now, max).iter().map(|status| status.wait_micros).collect()
    }

    #[test]
    fn a_rejected_request_is_charged_to_no_limit() {
        let local = LocalBuckets::new();
        assert_eq!(waits(&local, TWO, "alice", 0, 9), [0, 0]);
        for _ in 0..9 {
            assert_eq!(waits(&local, TWO, "alice", 0, 9), [1_000_000, 0]);
        }
        assert_eq!(waits(&local, TWO, "bob", 0, 9), [0, 0]);
        assert_eq!(waits(&local, TWO, "carol", 0, 9), [0, 0]);
        assert_eq!(waits(&local, TWO, "dave", 0, 9), [0, 333_334]);
        assert_eq!(waits(&local, TWO, "alice", 1_000_000, 9), [0, 0]);
    }

    #[test]
    fn callers_beyond_the_maximum_of_buckets_share_the_overflow_bucket() {
        let (local, narrow) = (
            LocalBuckets::new(),
            TWO.split("[[limit]]").nth(1).map(|one| format!("[[limit]]{one}")),
        );
        let narrow = narrow.unwrap();
        let waits = |subject, now| waits(&local, &narrow, subject, now, 2);
        assert_eq!((waits("alice", 0), waits("bob", 0)), (vec![0], vec![0]));
        assert_eq!((waits("carol", 0), waits("dave", 0)), (vec![0], vec![1_000_000]));
        // The buckets of alice and bob are full again and were removed.
        assert_eq!((waits("dave", 1_000_000), waits("erin", 1_000_000)), (vec![0], vec![0]));
    }
}
