//! The response cache: results of tools and resources whose contract allows caching.
//!
//! An entry is the service's own message, before the edge's config is applied to it. It is stored
//! in this process and, where one is configured, in Redis. Auth decides on every call before the
//! cache is looked up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use drawbridge_runtime::ServiceBuilder;
use prost_reflect::DynamicMessage;
use redis::RedisError;
use secrecy::SecretString;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use self::{
    inflight::{FetchOutcome, Inflight, InflightFetches, Joined},
    key::{CacheKey, KeyDeriver, KeyInput, claims},
    memory::{CacheEntry, MemoryStore},
    shared::RedisStore,
    tags::{TagWatcher, Tags},
};
use crate::{
    keys::CacheKeys,
    metrics::{CACHE_LOOKUPS, CACHE_SIZE, CACHE_STORED},
};

pub(crate) use self::{
    config::CacheSettings,
    rule::{CacheRule, CacheRuleError, CacheTag, CacheTagError, CallCaching, SharingScope},
    tags::PendingWrite,
};

mod config;
mod inflight;
mod key;
mod memory;
mod rule;
mod shared;
mod tags;
#[cfg(test)]
mod tests;

/// How many results are revalidated in the background at the same time.
const REFRESHES_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Cache {
    settings: ArcSwap<CacheSettings>,
    keys: KeyDeriver,
    memory: MemoryStore,
    shared: Option<Arc<RedisStore>>,
    tags: Tags,
    fetches: Arc<InflightFetches>,
    refreshes: Arc<Semaphore>,
}

/// A call whose result may be cached, and the key of that result.
#[derive(Clone, Debug)]
pub(crate) struct CacheKeyed {
    rule: Arc<CacheRule>,
    key: CacheKey,
    /// When the call began, from which the age of its result counts.
    began: Instant,
}

/// The outcome of a cache lookup.
pub(crate) enum Lookup {
    Hit(Hit),
    /// With a fetch, other calls may wait for the result of this one.
    Miss(Option<Fetch>),
}

impl Lookup {
    /// The outcome, for spans.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Hit(_) => "hit",
            Self::Miss(_) => "miss",
        }
    }
}

pub(crate) struct Hit {
    pub(crate) message: Bytes,
    pub(crate) age: Duration,
    /// Set where the entry is stale and this call must refresh it.
    pub(crate) refresh: Option<Fetch>,
}

/// The duty to fetch a result.
#[derive(Debug)]
pub(crate) struct Fetch {
    inflight: Inflight,
    /// Held while a stale entry is refreshed.
    refresh_permit: Option<OwnedSemaphorePermit>,
}

impl Cache {
    /// Starts the cache.
    pub(crate) fn start(
        service: &ServiceBuilder,
        keys: CacheKeys,
        redis_url: Option<&SecretString>,
    ) -> Result<Arc<Self>, RedisError> {
        let (cache, watcher) = Self::new(keys, redis_url)?;
        service.spawn(watcher.run(service.stopping()));
        Ok(Arc::new(cache))
    }

    /// A cache, and the watcher of the writes of other replicas.
    pub(crate) fn new(
        keys: CacheKeys,
        redis_url: Option<&SecretString>,
    ) -> Result<(Self, TagWatcher), RedisError> {
        let settings = CacheSettings::default();
        let shared = redis_url
            .map(|url| RedisStore::new(url, keys.entries, settings.redis_timeout))
            .transpose()?;
        let shared = shared.map(Arc::new);
        let (tags, watcher) = Tags::new(shared.clone());
        let cache = Self {
            settings: ArcSwap::from_pointee(settings),
            keys: KeyDeriver::new(keys.digests),
            memory: MemoryStore::new(settings.bytes_max),
            shared,
            tags,
            fetches: Arc::default(),
            refreshes: Arc::new(Semaphore::new(REFRESHES_MAX)),
        };
        Ok((cache, watcher))
    }

    /// Applies these settings.
    pub(crate) fn set(&self, settings: CacheSettings) {
        self.memory.set(settings.bytes_max);
        if let Some(shared) = &self.shared {
            shared.set(settings.redis_timeout);
        }
        if !settings.enabled {
            self.memory.clear();
        }
        self.settings.store(Arc::new(settings));
    }

    /// Keys a call that auth allowed in `epoch` with this transaction token. `None`: its result is
    /// not cached.
    pub(crate) fn keyed(
        &self,
        rule: &Arc<CacheRule>,
        rpc: &str,
        message: &DynamicMessage,
        token: &SecretString,
        epoch: u64,
    ) -> Option<CacheKeyed> {
        let began = Instant::now();
        let derive_key = || {
            // Read before the call: a write meanwhile begins other generations, so this result is
            // stored under a key that no later lookup uses.
            let generations = self.tags.generations(&rule.tags)?;
            let caller = match rule.scope {
                SharingScope::Public => None,
                SharingScope::Private | SharingScope::Tenant => Some(claims(token)?),
            };
            let input = KeyInput { rule, rpc, message, caller: caller.as_ref(), epoch };
            self.keys.key(&input, &generations)
        };
        let key = if self.settings.load().enabled { derive_key() } else { None };
        if key.is_none() {
            count(rule, "bypassed");
        }
        Some(CacheKeyed { rule: Arc::clone(rule), key: key?, began })
    }

    /// Looks a result up. Waits until `deadline` for one that another call is fetching.
    pub(crate) async fn lookup(&self, call: &CacheKeyed, deadline: Instant) -> Lookup {
        loop {
            if let Some(entry) = self.memory.get(&call.key) {
                return self.hit(call, entry, "memory");
            }
            let inflight = match self.fetches.join(call.key) {
                Joined::Leader(inflight) => inflight,
                Joined::Follower(follower) => {
                    match timeout_at(deadline.into(), follower.outcome()).await {
                        Ok(FetchOutcome::Entry(entry)) => return self.hit(call, entry, "joined"),
                        Ok(FetchOutcome::Abandoned) => continue,
                        // After a failure the followers call at once, not one after the other.
                        Ok(FetchOutcome::Empty) | Err(_) => return miss(call, None),
                    }
                }
            };
            // A fetch may have completed just before.
            let (found, level) = match self.memory.get(&call.key) {
                Some(entry) => (Some(entry), "memory"),
                None => (self.shared_entry(call).await, "redis"),
            };
            let Some(entry) = found else {
                return miss(call, Some(Fetch { inflight, refresh_permit: None }));
            };
            inflight.complete(FetchOutcome::Entry(entry.clone()));
            return self.hit(call, entry, level);
        }
    }

    /// The entry in Redis, which is then stored in memory too.
    async fn shared_entry(&self, call: &CacheKeyed) -> Option<CacheEntry> {
        let entry = self.shared.as_ref()?.get(&call.key, call.rule.lifetime()).await?;
        entry.remaining()?;
        self.memory.put(call.key, entry.clone());
        Some(entry)
    }

    /// A hit, with the duty to refresh the entry where it is stale.
    fn hit(&self, call: &CacheKeyed, entry: CacheEntry, level: &'static str) -> Lookup {
        let age = entry.age();
        let is_stale = age >= call.rule.ttl;
        count(&call.rule, if is_stale { "stale" } else { level });
        let refresh = is_stale.then(|| self.refresh(call)).flatten();
        Lookup::Hit(Hit { message: entry.bytes, age, refresh })
    }

    /// The duty to refresh a stale entry, unless another call has it or too many refreshes run.
    fn refresh(&self, call: &CacheKeyed) -> Option<Fetch> {
        let permit = Arc::clone(&self.refreshes).try_acquire_owned().ok()?;
        match self.fetches.join(call.key) {
            Joined::Leader(inflight) => Some(Fetch { inflight, refresh_permit: Some(permit) }),
            Joined::Follower(_) => None,
        }
    }

    /// Completes the fetch with a fresh entry of another replica. Returns the fetch if Redis has
    /// none.
    pub(crate) async fn adopt_refreshed(&self, call: &CacheKeyed, fetch: Fetch) -> Option<Fetch> {
        match self.shared_entry(call).await {
            Some(entry) if entry.age() < call.rule.ttl => {
                fetch.inflight.complete(FetchOutcome::Entry(entry));
                None
            }
            _ => Some(fetch),
        }
    }

    /// Stores a result, if it is not too large.
    pub(crate) async fn store(&self, call: &CacheKeyed, fetch: Fetch, bytes: Bytes) {
        let settings = **self.settings.load();
        if !settings.enabled || bytes.len() as u64 > settings.entry_bytes_max {
            return self.evict(call, fetch).await;
        }
        // A copy: the bytes may be a slice of a much larger buffer and would retain all of it.
        let bytes = Bytes::copy_from_slice(&bytes);
        let entry = CacheEntry { bytes, requested_at: call.began, lifetime: call.rule.lifetime() };
        self.memory.put(call.key, entry.clone());
        fetch.inflight.complete(FetchOutcome::Entry(entry.clone()));
        CACHE_STORED.with([call.rule.item.clone().into()]).increment(1);
        CACHE_SIZE.get().set(bytes_as_metric(self.memory.bytes()));
        if let Some(shared) = &self.shared {
            shared.put(&call.key, &entry).await;
        }
    }

    /// Ends a fetch whose result is not cached, and evicts the stale entry it was to refresh.
    pub(crate) async fn evict(&self, call: &CacheKeyed, fetch: Fetch) {
        if fetch.refresh_permit.is_none() {
            return fetch.fail();
        }
        self.memory.remove(&call.key);
        fetch.fail();
        if let Some(shared) = &self.shared {
            shared.remove(&call.key).await;
        }
    }

    /// Begins a call that invalidates these tags. The service carries it out within `timeout` or
    /// not at all.
    pub(crate) fn begin_write(&self, tags: &[CacheTag], timeout: Duration) -> PendingWrite {
        self.tags.begin_write(tags.to_vec(), timeout)
    }
}

impl Fetch {
    /// Ends the fetch without a result: the followers call the service themselves.
    pub(crate) fn fail(self) {
        self.inflight.complete(FetchOutcome::Empty);
    }
}

impl CacheKeyed {
    /// The same call, begun now.
    pub(crate) fn restarted(&self) -> Self {
        Self { began: Instant::now(), ..self.clone() }
    }
}

impl CacheRule {
    /// How long a result may be served: fresh, then stale.
    fn lifetime(&self) -> Duration {
        self.ttl + self.stale
    }
}

fn miss(call: &CacheKeyed, fetch: Option<Fetch>) -> Lookup {
    count(&call.rule, "miss");
    Lookup::Miss(fetch)
}

fn count(rule: &CacheRule, outcome: &'static str) {
    CACHE_LOOKUPS.with([rule.item.clone().into(), outcome.into()]).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "a metric need not be exact to the byte")]
const fn bytes_as_metric(bytes: u64) -> f64 {
    bytes as f64
}
