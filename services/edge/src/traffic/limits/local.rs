//! Buckets in this process: all there are without Redis, and what is left while it is away.
//!
//! Not a library's limiter: none takes from several limits at once, or from none.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    gcra::Answer,
    limit::{Ask, Bucket},
};

/// How many buckets one limit has at most. Whoever comes then shares one with the others who do.
const BUCKETS_MAX: usize = 100_000;
const SHARED: Bucket = Bucket::NOBODY;
/// How often full buckets are looked for, in microseconds.
const SWEEP_MICROS: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Local {
    began: Instant,
    /// By the name of the limit.
    limits: Mutex<HashMap<String, Buckets>>,
}

#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<Bucket, u64>,
    swept_at: u64,
}

impl Buckets {
    /// The bucket to take from.
    fn find(&mut self, bucket: Bucket, now: u64, max: usize) -> Bucket {
        if self.full_at.len() < max || self.full_at.contains_key(&bucket) {
            return bucket;
        }
        if now >= self.swept_at + SWEEP_MICROS {
            // A full bucket is as good as none.
            self.full_at.retain(|_, full_at| *full_at > now);
            self.swept_at = now;
        }
        if self.full_at.len() < max { bucket } else { SHARED }
    }
}

impl Local {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), limits: Mutex::default() }
    }

    /// Takes from this replica's share of every limit, or from none.
    pub(super) fn take(&self, asks: &[Ask]) -> Vec<Answer> {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.take_at(asks, now, BUCKETS_MAX)
    }

    pub(super) fn take_at(&self, asks: &[Ask], now: u64, max: usize) -> Vec<Answer> {
        let mut limits = self.limits();
        let mut found = Vec::with_capacity(asks.len());
        let mut answers = Vec::with_capacity(asks.len());
        for ask in asks {
            let name = ask.limit.name.as_str();
            if !limits.contains_key(name) {
                limits.insert(name.to_owned(), Buckets::default());
            }
            let Some(buckets) = limits.get_mut(name) else { continue };
            let bucket = buckets.find(ask.bucket, now, max);
            let full_at = buckets.full_at.get(&bucket).copied().unwrap_or(now);
            answers.push(ask.limit.share.ask(full_at, now, ask.cost));
            found.push(bucket);
        }
        if answers.iter().all(|answer| answer.wait_micros == 0) {
            for ((ask, bucket), answer) in asks.iter().zip(found).zip(&answers) {
                let full_at = now + answer.lack_micros + answer.quota.micros(ask.cost);
                if let Some(buckets) = limits.get_mut(ask.limit.name.as_str()) {
                    buckets.full_at.insert(bucket, full_at);
                }
            }
        }
        answers
    }

    /// Forgets the buckets of limits that are not there any more.
    pub(super) fn keep(&self, is_limit: impl Fn(&str) -> bool) {
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
    use crate::traffic::limits::{config::tests::rules, limit::Counted};

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

    fn waits(local: &Local, text: &str, subject: &str, now: u64, max: usize) -> Vec<u64> {
        let principal = Principal { subject: subject.into(), ..Default::default() };
        let asks = rules(text).asks(&Counted::Caller { principal: &principal, tool: None });
        local.take_at(&asks, now, max).iter().map(|answer| answer.wait_micros).collect()
    }

    #[test]
    fn a_refused_request_takes_nothing_from_the_other_limits() {
        let local = Local::new();
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
    fn who_comes_when_there_are_too_many_shares_one_bucket() {
        let (local, narrow) =
            (Local::new(), TWO.split("[[limit]]").nth(1).map(|one| format!("[[limit]]{one}")));
        let narrow = narrow.unwrap();
        let waits = |subject, now| waits(&local, &narrow, subject, now, 2);
        assert_eq!((waits("alice", 0), waits("bob", 0)), (vec![0], vec![0]));
        assert_eq!((waits("carol", 0), waits("dave", 0)), (vec![0], vec![1_000_000]));
        // The others' buckets are full again, and make room.
        assert_eq!((waits("dave", 1_000_000), waits("erin", 1_000_000)), (vec![0], vec![0]));
    }
}
