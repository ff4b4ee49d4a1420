//! Decisions that auth permits the edge to reuse for a short time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1 as pb;
use drawbridge_runtime::length_prefixed;
use moka::sync::Cache;
use prost_reflect::prost::Message as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{
    Allowed,
    epochs::{CurrentEpoch, Epochs, NO_EPOCH, Period},
};

/// How many decisions are cached, and the longest time to live, even if auth permits more.
const DECISIONS_MAX: u64 = 20_000;
const DECISION_TTL_MAX: Duration = Duration::from_secs(10);
/// How many rejected tokens are cached, and for how long: auth may learn their signing key at any
/// time.
const REJECTED_MAX: u64 = 10_000;
const REJECTED_TTL: Duration = Duration::from_secs(5);

/// Identifies a decision: a digest, so that the cache stores no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DecisionKey([u8; 32]);

impl DecisionKey {
    /// The key does not include the arguments, because a decision that depends on them is not
    /// cached. It includes whether there are any.
    pub(super) fn new(token: &SecretString, resource: &str, operation: &pb::Operation) -> Self {
        let item = operation.item.as_ref().map(pb::CatalogItem::encode_to_vec).unwrap_or_default();
        let mut digest = Sha256::new();
        digest.update([u8::from(operation.arguments_json.is_some())]);
        digest.update(operation.kind.to_be_bytes());
        for part in [resource.as_bytes(), &item, token.expose_secret().as_bytes()] {
            length_prefixed(part, |bytes| digest.update(bytes));
        }
        Self(digest.finalize().into())
    }
}

#[derive(Clone, Debug)]
struct CachedDecision {
    allowed: Allowed,
    period: Period,
    expires_at: Instant,
}

/// The decisions of the current epoch. INVARIANT: a decision is used only in the period in which it
/// was requested and made, while every live replica of auth is in its epoch.
#[derive(Debug)]
pub(super) struct DecisionCache {
    epochs: Arc<Epochs>,
    allowed: Cache<DecisionKey, CachedDecision>,
    /// Rejected tokens, and why.
    rejected: Cache<DecisionKey, (Period, Arc<str>)>,
}

impl DecisionCache {
    pub(super) fn new(epochs: Arc<Epochs>) -> Self {
        let allowed =
            Cache::builder().max_capacity(DECISIONS_MAX).time_to_live(DECISION_TTL_MAX).build();
        let rejected =
            Cache::builder().max_capacity(REJECTED_MAX).time_to_live(REJECTED_TTL).build();
        Self { epochs, allowed, rejected }
    }

    /// Subscribes to the epoch.
    pub(super) fn subscribe(&self) -> watch::Receiver<CurrentEpoch> {
        self.epochs.subscribe()
    }

    /// The decision, or else the period in which auth is asked for it.
    pub(super) fn get(&self, key: &DecisionKey) -> Result<Allowed, Period> {
        let (current, now) = (self.epochs.current(), Instant::now());
        let found = current.is_valid(now).then(|| self.allowed.get(key)).flatten();
        let is_usable =
            |entry: &CachedDecision| entry.period == current.period && entry.expires_at > now;
        found.filter(is_usable).map(|entry| entry.allowed).ok_or(current.period)
    }

    /// Why auth recently rejected this token.
    pub(super) fn rejected(&self, key: &DecisionKey) -> Option<Arc<str>> {
        let (period, description) = self.rejected.get(key)?;
        (period == self.epochs.current().period).then_some(description)
    }

    /// Caches that auth, asked in this period, rejected a token.
    pub(super) fn insert_rejected(&self, key: DecisionKey, period: Period, description: &str) {
        self.rejected.insert(key, (period, description.into()));
    }

    /// Caches a decision, for which auth was asked in this period, for as long as auth permits.
    pub(super) fn insert(
        &self,
        key: DecisionKey,
        period: Period,
        allowed: &Allowed,
        ttl: Duration,
    ) {
        let current = self.epochs.current();
        if allowed.epoch == NO_EPOCH || allowed.epoch != current.number || period != current.period
        {
            return;
        }
        let expires_at = Instant::now() + ttl.min(DECISION_TTL_MAX);
        self.allowed.insert(key, CachedDecision { allowed: allowed.clone(), period, expires_at });
    }
}

#[cfg(test)]
mod tests {
    use drawbridge_runtime::RequestId;

    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn key(token: &str, tool: &str) -> DecisionKey {
        let item = Some(pb::CatalogItem { name: tool.to_owned(), ..Default::default() });
        let operation =
            pb::Operation { item, arguments_json: Some("{}".into()), ..Default::default() };
        DecisionKey::new(&token.into(), "https://edge.example/mcp", &operation)
    }

    fn allowed(subject: &str, epoch: u64) -> Allowed {
        let principal = pb::Principal { subject: subject.to_owned(), ..Default::default() };
        let allowed = pb::Allowed { principal: Some(principal), epoch, ..Default::default() };
        Allowed::new(allowed, RequestId::generate())
    }

    fn subject(cache: &DecisionCache, key: DecisionKey) -> Option<String> {
        cache.get(&key).ok().map(|allowed| allowed.principal.subject.clone())
    }

    fn insert(cache: &DecisionCache, epoch: u64, ttl: Duration) {
        let period = cache.epochs.current().period;
        cache.insert(key("a", "read"), period, &allowed("alice", epoch), ttl);
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_decision_is_reused_for_the_same_token_and_operation_only() {
        let epochs = Epochs::new();
        let (cache, replica) = (DecisionCache::new(Arc::clone(&epochs)), epochs.join());
        replica.announce(7, later());
        insert(&cache, 7, TTL);
        assert_eq!(subject(&cache, key("a", "read")).as_deref(), Some("alice"));
        assert_eq!(subject(&cache, key("b", "read")), None);
        assert_eq!(subject(&cache, key("a", "write")), None);
    }

    #[test]
    fn a_decision_does_not_outlive_its_epoch_or_the_epoch_stream() {
        let epochs = Epochs::new();
        let (cache, replica) = (DecisionCache::new(Arc::clone(&epochs)), epochs.join());
        let found = || subject(&cache, key("a", "read"));
        insert(&cache, 7, TTL);
        assert_eq!(found(), None, "no epoch was received");
        replica.announce(7, later());
        insert(&cache, 6, TTL);
        assert_eq!(found(), None, "the decision is of an earlier epoch");
        insert(&cache, 7, TTL);
        assert!(found().is_some());
        replica.announce(7, Instant::now());
        assert_eq!(found(), None, "the replica is silent");
        replica.announce(7, later());
        assert!(found().is_some());
        drop(replica);
        assert_eq!(found(), None, "the epoch stream is lost");
        let again = epochs.join();
        again.announce(7, later());
        assert_eq!(found(), None, "a replica of the same epoch did not decide it");
    }

    #[test]
    fn a_decision_is_not_used_while_any_live_replica_is_in_another_epoch() {
        let epochs = Epochs::new();
        let cache = DecisionCache::new(Arc::clone(&epochs));
        let (one, two) = (epochs.join(), epochs.join());
        let found = || subject(&cache, key("a", "read"));
        one.announce(7, later());
        two.announce(7, later());
        insert(&cache, 7, TTL);
        assert!(found().is_some());
        two.announce(8, later());
        assert_eq!(found(), None, "one replica has a new epoch");
        for epoch in [7, 8] {
            insert(&cache, epoch, TTL);
            assert_eq!(found(), None, "the replicas differ");
        }
        let requested_in = epochs.current().period;
        one.announce(8, later());
        cache.insert(key("a", "read"), requested_in, &allowed("alice", 8), TTL);
        assert_eq!(found(), None, "it was requested before the replicas agreed");
        insert(&cache, 8, TTL);
        assert!(found().is_some());
    }

    #[test]
    fn a_decision_expires_with_its_time_to_live() {
        let epochs = Epochs::new();
        let (cache, replica) = (DecisionCache::new(Arc::clone(&epochs)), epochs.join());
        replica.announce(7, later());
        insert(&cache, 7, Duration::ZERO);
        assert_eq!(subject(&cache, key("a", "read")), None);
    }
}
