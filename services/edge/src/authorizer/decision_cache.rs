//! Decisions that auth permits the edge to reuse for a short time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;
use tokio::sync::watch;

use super::{
    Allowed, VisibleItems,
    decision_key::{DECISION_TTL_MAX, DecisionKey},
    epochs::{CurrentEpoch, Epochs, NO_EPOCH, Period},
};

/// How many decisions are cached.
const DECISIONS_MAX: u64 = 20_000;
/// How many rejected tokens are cached, and for how long: auth may learn their signing key at any
/// time.
const REJECTED_MAX: u64 = 10_000;
const REJECTED_TTL: Duration = Duration::from_secs(5);
/// How much memory the visible items of lists may take, in bytes.
const VISIBLE_BYTES_MAX: u64 = 8 * 1024 * 1024;

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
    /// What callers may see of lists.
    visible: Cache<DecisionKey, Arc<VisibleItems>>,
}

impl DecisionCache {
    pub(super) fn new(epochs: Arc<Epochs>) -> Self {
        let allowed =
            Cache::builder().max_capacity(DECISIONS_MAX).time_to_live(DECISION_TTL_MAX).build();
        let rejected =
            Cache::builder().max_capacity(REJECTED_MAX).time_to_live(REJECTED_TTL).build();
        let visible = Cache::builder()
            .weigher(|_: &DecisionKey, items: &Arc<VisibleItems>| items.size())
            .max_capacity(VISIBLE_BYTES_MAX)
            .time_to_live(DECISION_TTL_MAX)
            .build();
        Self { epochs, allowed, rejected, visible }
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

    /// What is known of a list. Nothing, where auth is to be asked.
    pub(super) fn visible(&self, key: DecisionKey) -> VisibleItems {
        let (current, now) = (self.epochs.current(), Instant::now());
        let found = current.is_valid(now).then(|| self.visible.get(&key)).flatten();
        let found = found.filter(|items| items.is_usable(current.period, now));
        found.map_or_else(|| VisibleItems::unknown(key, current.period), |items| (*items).clone())
    }

    /// Caches what is known of a list, for as long as auth permits.
    pub(super) fn insert_visible(&self, items: &VisibleItems) {
        let current = self.epochs.current();
        let now = Instant::now();
        if items.epoch() == NO_EPOCH
            || items.epoch() != current.number
            || !items.is_usable(current.period, now)
        {
            return;
        }
        self.visible.insert(items.key(), Arc::new(items.clone()));
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
    use drawbridge_proto::auth::v1 as pb;
    use drawbridge_runtime::RequestId;

    use super::{
        super::{ItemList, Visible},
        *,
    };

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
    fn a_list_is_reused_for_the_same_token_endpoint_and_catalog_while_its_epoch_lasts() {
        const URL: &str = "https://edge.example/mcp";
        let epochs = Epochs::new();
        let (cache, replica) = (DecisionCache::new(Arc::clone(&epochs)), epochs.join());
        let list = |catalog| ItemList { kind: pb::operation::Kind::CallTool, catalog };
        let known = |token: &str, url, catalog| {
            let key = DecisionKey::of_list(&token.into(), url, list(catalog));
            cache.visible(key).decision().is_some()
        };
        let insert = |epoch| {
            let visible = pb::Visible {
                epoch,
                reusable_for: Some(TTL.try_into().unwrap()),
                ..Default::default()
            };
            let visible = Visible::new(visible, RequestId::generate());
            let mut items = cache.visible(DecisionKey::of_list(&"a".into(), URL, list(1)));
            items.extend(&visible, [true].into_iter());
            cache.insert_visible(&items);
        };
        insert(7);
        assert!(!known("a", URL, 1), "no epoch was received");
        replica.announce(7, later());
        insert(6);
        assert!(!known("a", URL, 1), "the list is of an earlier epoch");
        insert(NO_EPOCH);
        assert!(!known("a", URL, 1), "auth named no epoch");
        insert(7);
        assert!(known("a", URL, 1));
        assert!(!known("b", URL, 1));
        assert!(!known("a", "https://edge.example/mcp/code", 1));
        assert!(!known("a", URL, 2));
        replica.announce(8, later());
        assert!(!known("a", URL, 1), "the epoch has ended");
        replica.announce(7, later());
        assert!(!known("a", URL, 1), "the epoch came back in another period");
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
