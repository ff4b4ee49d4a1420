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

use super::Allowed;

/// How many decisions are cached, and the longest time to live, even if auth permits more.
const DECISIONS_MAX: u64 = 20_000;
const DECISION_TTL_MAX: Duration = Duration::from_secs(10);
/// How many rejected tokens are cached, and for how long: auth may learn their signing key at any
/// time.
const REJECTED_MAX: u64 = 10_000;
const REJECTED_TTL: Duration = Duration::from_secs(5);
/// The epoch while the epoch stream is lost.
pub(crate) const NO_EPOCH: u64 = 0;

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
    expires_at: Instant,
}

/// The decisions of the current epoch.
#[derive(Debug)]
pub(super) struct DecisionCache {
    epoch: watch::Sender<u64>,
    allowed: Cache<DecisionKey, CachedDecision>,
    /// Rejected tokens, and why.
    rejected: Cache<DecisionKey, Arc<str>>,
}

impl DecisionCache {
    /// A cache that stores no decision until the first epoch is set.
    pub(super) fn new() -> Self {
        let allowed =
            Cache::builder().max_capacity(DECISIONS_MAX).time_to_live(DECISION_TTL_MAX).build();
        let rejected =
            Cache::builder().max_capacity(REJECTED_MAX).time_to_live(REJECTED_TTL).build();
        Self { epoch: watch::Sender::new(NO_EPOCH), allowed, rejected }
    }

    /// Sets the epoch. A new one invalidates all entries.
    pub(super) fn set_epoch(&self, epoch: u64) {
        let changed = self.epoch.send_if_modified(|now| std::mem::replace(now, epoch) != epoch);
        if changed {
            self.allowed.invalidate_all();
            self.rejected.invalidate_all();
        }
    }

    /// Subscribes to the epoch.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Invalidates all entries while the epoch stream is lost, because decisions may have changed.
    pub(super) fn clear_epoch(&self) {
        self.set_epoch(NO_EPOCH);
    }

    pub(super) fn get(&self, key: &DecisionKey) -> Option<Allowed> {
        let epoch = *self.epoch.borrow();
        if epoch == NO_EPOCH {
            return None;
        }
        let entry = self.allowed.get(key)?;
        let is_valid = entry.allowed.epoch == epoch && entry.expires_at > Instant::now();
        is_valid.then_some(entry.allowed)
    }

    /// Why auth recently rejected this token.
    pub(super) fn rejected(&self, key: &DecisionKey) -> Option<Arc<str>> {
        self.rejected.get(key)
    }

    /// Caches that auth rejected a token.
    pub(super) fn insert_rejected(&self, key: DecisionKey, description: &str) {
        self.rejected.insert(key, description.into());
    }

    /// Caches a decision for as long as auth permits.
    pub(super) fn insert(&self, key: DecisionKey, allowed: &Allowed, ttl: Duration) {
        if allowed.epoch == NO_EPOCH || allowed.epoch != *self.epoch.borrow() {
            return;
        }
        let expires_at = Instant::now() + ttl.min(DECISION_TTL_MAX);
        self.allowed.insert(key, CachedDecision { allowed: allowed.clone(), expires_at });
    }
}

#[cfg(test)]
mod tests {
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
        pb::Allowed { principal: Some(principal), epoch, ..Default::default() }.into()
    }

    fn subject(cache: &DecisionCache, key: DecisionKey) -> Option<String> {
        cache.get(&key).map(|allowed| allowed.principal.subject.clone())
    }

    #[test]
    fn a_decision_is_reused_for_the_same_token_and_operation_only() {
        let cache = DecisionCache::new();
        cache.set_epoch(7);
        cache.insert(key("a", "read"), &allowed("alice", 7), TTL);
        assert_eq!(subject(&cache, key("a", "read")).as_deref(), Some("alice"));
        assert_eq!(subject(&cache, key("b", "read")), None);
        assert_eq!(subject(&cache, key("a", "write")), None);
    }

    #[test]
    fn a_decision_does_not_outlive_its_epoch_or_the_epoch_stream() {
        let cache = DecisionCache::new();
        cache.insert(key("a", "read"), &allowed("alice", 7), TTL);
        assert_eq!(subject(&cache, key("a", "read")), None, "no epoch was received");
        cache.set_epoch(7);
        cache.insert(key("a", "read"), &allowed("alice", 6), TTL);
        let found = subject(&cache, key("a", "read"));
        assert_eq!(found, None, "the decision is of an earlier epoch");
        cache.insert(key("a", "read"), &allowed("alice", 7), TTL);
        cache.clear_epoch();
        assert_eq!(subject(&cache, key("a", "read")), None, "the epoch stream is lost");
        cache.set_epoch(7);
        assert_eq!(subject(&cache, key("a", "read")), None, "the entry was not invalidated");
    }

    #[test]
    fn a_decision_expires_with_its_time_to_live() {
        let cache = DecisionCache::new();
        cache.set_epoch(7);
        cache.insert(key("a", "read"), &allowed("alice", 7), Duration::ZERO);
        assert_eq!(subject(&cache, key("a", "read")), None);
    }
}
