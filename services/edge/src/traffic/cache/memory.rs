//! What this process keeps: bounded in bytes, each entry for its time.

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

use super::key::Key;

/// What an entry takes besides its bytes, about.
const OVERHEAD_BYTES: u32 = 256;

/// A result as its service sent it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) bytes: Bytes,
    /// When it was asked for: it may be as old as that.
    pub(super) born: Instant,
    /// After how long it is of no use.
    pub(super) lasts: Duration,
}

impl Entry {
    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// How long it is still of use; none when it is not.
    pub(super) fn left(&self) -> Option<Duration> {
        self.lasts.checked_sub(self.age()).filter(|left| !left.is_zero())
    }
}

/// Entries last as long as they say themselves, those that take another's place too.
struct Lasts;

impl Expiry<Key, Entry> for Lasts {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.left().unwrap_or_default())
    }

    fn expire_after_update(
        &self,
        _: &Key,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.left().unwrap_or_default())
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    entries: ArcSwap<Cache<Key, Entry>>,
    bytes_max: AtomicU64,
}

impl Memory {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            entries: ArcSwap::from_pointee(entries(bytes_max)),
            bytes_max: AtomicU64::new(bytes_max),
        }
    }

    /// May have so many bytes from now on. Another number begins with nothing.
    pub(super) fn set(&self, bytes_max: u64) {
        if self.bytes_max.swap(bytes_max, Ordering::Relaxed) != bytes_max {
            self.entries.store(Arc::new(entries(bytes_max)));
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.load().get(key).filter(|entry| entry.left().is_some())
    }

    pub(super) fn put(&self, key: Key, entry: Entry) {
        self.entries.load().insert(key, entry);
    }

    pub(super) fn remove(&self, key: &Key) {
        self.entries.load().invalidate(key);
    }

    pub(super) fn clear(&self) {
        self.entries.load().invalidate_all();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.entries.load().weighted_size()
    }
}

fn entries(bytes_max: u64) -> Cache<Key, Entry> {
    let weight = |_: &Key, entry: &Entry| {
        u32::try_from(entry.bytes.len()).unwrap_or(u32::MAX).saturating_add(OVERHEAD_BYTES)
    };
    let evicted = |_, _, cause| {
        if cause == RemovalCause::Size {
            metrics::counter!("edge_cache_evicted_total").increment(1);
        }
    };
    Cache::builder()
        .max_capacity(bytes_max)
        .weigher(weight)
        .expire_after(Lasts)
        .eviction_listener(evicted)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: usize, lasts: Duration) -> Entry {
        Entry { bytes: vec![1; bytes].into(), born: Instant::now(), lasts }
    }

    #[test]
    fn an_entry_that_is_fetched_anew_lasts_anew() {
        let memory = Memory::new(10_000);
        let key = Key::of([1; 32]);
        let day = Duration::from_secs(86_400);
        memory.put(key, entry(1, Duration::from_millis(1)));
        std::thread::sleep(Duration::from_millis(20));
        assert!(memory.get(&key).is_none());
        memory.put(key, entry(2, day));
        memory.put(key, entry(3, day));
        assert_eq!(memory.get(&key).map(|entry| entry.bytes.len()), Some(3));
    }

    #[test]
    fn there_are_never_more_bytes_than_may_be() {
        let memory = Memory::new(100_000);
        for number in 0..100 {
            memory.put(Key::of([number; 32]), entry(10_000, Duration::from_secs(60)));
        }
        memory.entries.load().run_pending_tasks();
        assert!(memory.bytes() <= 100_000, "{}", memory.bytes());
        assert!(memory.entries.load().entry_count() > 0);
        memory.set(200_000);
        assert_eq!(memory.bytes(), 0);
    }
}
