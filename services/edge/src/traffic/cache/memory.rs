//! Cache entries in memory: bounded in bytes, each with its own lifetime.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use moka::{Expiry, notification::RemovalCause, sync::Cache};

use super::key::CacheKey;
use crate::metrics::CACHE_EVICTED;

/// Approximate memory of an entry besides its bytes.
const OVERHEAD_BYTES: u32 = 256;

/// A result as its service sent it.
#[derive(Clone, Debug)]
pub(super) struct CacheEntry {
    pub(super) bytes: Bytes,
    /// When the service was called; the age counts from there.
    pub(super) requested_at: Instant,
    /// After this age the entry has expired.
    pub(super) lifetime: Duration,
}

impl CacheEntry {
    pub(super) fn age(&self) -> Duration {
        self.requested_at.elapsed()
    }

    /// The time until it expires; `None` when it has.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.lifetime.checked_sub(self.age()).filter(|remaining| !remaining.is_zero())
    }
}

/// Each entry expires after its own lifetime, also one that replaces another.
struct EntryExpiry;

impl Expiry<CacheKey, CacheEntry> for EntryExpiry {
    fn expire_after_create(
        &self,
        _: &CacheKey,
        entry: &CacheEntry,
        _: Instant,
    ) -> Option<Duration> {
        Some(entry.remaining().unwrap_or_default())
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &CacheEntry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.remaining().unwrap_or_default())
    }
}

#[derive(Debug)]
pub(super) struct MemoryStore {
    entries: ArcSwap<Cache<CacheKey, CacheEntry>>,
    bytes_max: AtomicU64,
}

impl MemoryStore {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            entries: ArcSwap::from_pointee(bounded(bytes_max)),
            bytes_max: AtomicU64::new(bytes_max),
        }
    }

    /// Sets the bound. A changed bound empties the store.
    pub(super) fn set(&self, bytes_max: u64) {
        if self.bytes_max.swap(bytes_max, Ordering::Relaxed) != bytes_max {
            self.entries.store(Arc::new(bounded(bytes_max)));
        }
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<CacheEntry> {
        self.entries.load().get(key).filter(|entry| entry.remaining().is_some())
    }

    pub(super) fn put(&self, key: CacheKey, entry: CacheEntry) {
        self.entries.load().insert(key, entry);
    }

    pub(super) fn remove(&self, key: &CacheKey) {
        self.entries.load().invalidate(key);
    }

    pub(super) fn clear(&self) {
        self.entries.load().invalidate_all();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.entries.load().weighted_size()
    }
}

fn bounded(bytes_max: u64) -> Cache<CacheKey, CacheEntry> {
    let weight = |_: &CacheKey, entry: &CacheEntry| {
        u32::try_from(entry.bytes.len()).unwrap_or(u32::MAX).saturating_add(OVERHEAD_BYTES)
    };
    let evicted = |_, _, cause| {
        if cause == RemovalCause::Size {
            CACHE_EVICTED.get().increment(1);
        }
    };
    Cache::builder()
        .max_capacity(bytes_max)
        .weigher(weight)
        .expire_after(EntryExpiry)
        .eviction_listener(evicted)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: usize, lifetime: Duration) -> CacheEntry {
        CacheEntry { bytes: vec![1; bytes].into(), requested_at: Instant::now(), lifetime }
    }

    #[test]
    fn a_refreshed_entry_has_a_new_lifetime() {
        let memory = MemoryStore::new(10_000);
        let key = CacheKey::of([1; 32]);
        let day = Duration::from_secs(86_400);
        memory.put(key, entry(1, Duration::from_millis(1)));
        std::thread::sleep(Duration::from_millis(20));
        assert!(memory.get(&key).is_none());
        memory.put(key, entry(2, day));
        memory.put(key, entry(3, day));
        assert_eq!(memory.get(&key).map(|entry| entry.bytes.len()), Some(3));
    }

    #[test]
    fn memory_never_exceeds_its_byte_bound() {
        let memory = MemoryStore::new(100_000);
        for number in 0..100 {
            memory.put(CacheKey::of([number; 32]), entry(10_000, Duration::from_secs(60)));
        }
        memory.entries.load().run_pending_tasks();
        assert!(memory.bytes() <= 100_000, "{}", memory.bytes());
        assert!(memory.entries.load().entry_count() > 0);
        memory.set(200_000);
        assert_eq!(memory.bytes(), 0);
    }
}
