//! The response cache: results of tools and resources whose contract lets them be kept.
//!
//! What is kept is the service's own message, before anything of the edge's config is applied to it. It lies in this process
//! and, where there is one, in Redis. Auth has decided on every call before the cache is asked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use drawbridge_sdk::ServiceBuilder;
use prost_reflect::DynamicMessage;
use redis::RedisError;
use secrecy::SecretString;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    flight::{Flight, Flights, Joined, Landed},
    key::{Asked, Key, Keys, claims},
    memory::{Entry, Memory},
    shared::Shared,
    tags::{Follower, Tags},
};
use crate::sealer::Sealer;

pub(crate) use self::{
    config::{CacheTable, Settings},
    rule::{Rule, RuleError, Scope, Tag, TagError},
    tags::Writing,
};

mod config;
mod flight;
mod key;
mod memory;
mod rule;
mod shared;
mod tags;
#[cfg(test)]
mod tests;

/// How many results are fetched anew at the same time for nobody who waits.
const REFRESHES_MAX: usize = 256;

/// The cache cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The Redis URL is not one.
    #[error("cannot use the Redis URL")]
    Redis(#[from] RedisError),
    /// The system's cryptography does not work.
    #[error("cannot make a key for the cache")]
    Key,
}

/// Results that are kept.
#[derive(Debug)]
pub(crate) struct Cache {
    settings: ArcSwap<Settings>,
    keys: Keys,
    memory: Memory,
    shared: Option<Arc<Shared>>,
    tags: Tags,
    flights: Arc<Flights>,
    refreshes: Arc<Semaphore>,
    /// Held while calls go on, whose writes are to be error_chain to other replicas.
    _calls: Option<DropGuard>,
}

/// A call whose result may be kept.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    rule: Arc<Rule>,
    key: Key,
    /// When it began: its result may be as old as that.
    began: Instant,
}

/// What the cache has for a call.
pub(crate) enum Look {
    /// A result.
    Hit(Hit),
    /// Nothing. With a fetch, others may be waiting for this call.
    Miss(Option<Fetch>),
}

pub(crate) struct Hit {
    pub(crate) message: Bytes,
    pub(crate) age: Duration,
    /// It is to be fetched anew.
    pub(crate) refresh: Option<Fetch>,
}

/// The duty to fetch a result.
#[derive(Debug)]
pub(crate) struct Fetch {
    flight: Flight,
    /// Held while a result that is kept is fetched anew.
    refreshing: Option<OwnedSemaphorePermit>,
}

impl Cache {
    /// Begins to keep results. What finds them and what encrypts them in Redis is made of `secret`.
    pub(crate) fn start(
        starting: &ServiceBuilder,
        secret: &SecretString,
        redis_url: Option<&SecretString>,
    ) -> Result<Arc<Self>, CacheError> {
        let (mut cache, follower) = Self::new(secret, redis_url)?;
        let ended = CancellationToken::new();
        starting.spawn(follower.follow(ended.clone()));
        cache._calls = Some(starting.on_drained(async move { ended.cancel() }));
        Ok(Arc::new(cache))
    }

    /// A cache, and what follows the writes of other replicas.
    pub(crate) fn new(
        secret: &SecretString,
        redis_url: Option<&SecretString>,
    ) -> Result<(Self, Follower), CacheError> {
        let settings = Settings::default();
        let sealer = Sealer::new(secret, "cache entries").map_err(|_| CacheError::Key)?;
        let shared =
            redis_url.map(|url| Shared::new(url, sealer, settings.redis_timeout)).transpose()?;
        let shared = shared.map(Arc::new);
        let (tags, follower) = Tags::new(shared.clone());
        let cache = Self {
            settings: ArcSwap::from_pointee(settings),
            keys: Keys::new(secret),
            memory: Memory::new(settings.bytes_max),
            shared,
            tags,
            flights: Arc::default(),
            refreshes: Arc::new(Semaphore::new(REFRESHES_MAX)),
            _calls: None,
        };
        Ok((cache, follower))
    }

    /// These settings hold from now on.
    pub(crate) fn set(&self, settings: Settings) {
        self.memory.set(settings.bytes_max);
        if let Some(shared) = &self.shared {
            shared.set(settings.redis_timeout);
        }
        if !settings.enabled {
            self.memory.clear();
        }
        self.settings.store(Arc::new(settings));
    }

    /// The ticket of a call that auth has allowed in `epoch` with this transaction token. None: it is not kept.
    pub(crate) fn ticket(
        &self,
        rule: &Arc<Rule>,
        rpc: &str,
        message: &DynamicMessage,
        token: &SecretString,
        epoch: u64,
    ) -> Option<Ticket> {
        let began = Instant::now();
        let made = || {
            // Read before the call: what a write makes outdated meanwhile is kept where nobody looks.
            let generations = self.tags.generations(&rule.tags)?;
            let caller = match rule.scope {
                Scope::Public => None,
                Scope::Private | Scope::Tenant => Some(claims(token)?),
            };
            let asked = Asked { rule, rpc, message, caller: caller.as_ref(), epoch };
            self.keys.key(&asked, &generations)
        };
        let key = if self.settings.load().enabled { made() } else { None };
        if key.is_none() {
            count(rule, "bypassed");
        }
        Some(Ticket { rule: Arc::clone(rule), key: key?, began })
    }

    /// Looks for a result, and waits for one that is being fetched until `deadline`.
    pub(crate) async fn look(&self, ticket: &Ticket, deadline: Instant) -> Look {
        loop {
            if let Some(entry) = self.memory.get(&ticket.key) {
                return self.hit(ticket, entry, "memory");
            }
            let flight = match self.flights.join(ticket.key) {
                Joined::Lead(flight) => flight,
                Joined::Follow(waiting) => {
                    match timeout_at(deadline.into(), waiting.landed()).await {
                        Ok(Landed::With(entry)) => return self.hit(ticket, entry, "joined"),
                        Ok(Landed::GivenUp) => continue,
                        // What one has failed at is not done one after the other by all who waited.
                        Ok(Landed::Empty) | Err(_) => return miss(ticket, None),
                    }
                }
            };
            // It may have landed just before.
            let (found, level) = match self.memory.get(&ticket.key) {
                Some(entry) => (Some(entry), "memory"),
                None => (self.elsewhere(ticket).await, "redis"),
            };
            let Some(entry) = found else {
                return miss(ticket, Some(Fetch { flight, refreshing: None }));
            };
            flight.land(Landed::With(entry.clone()));
            return self.hit(ticket, entry, level);
        }
    }

    /// What another replica keeps.
    async fn elsewhere(&self, ticket: &Ticket) -> Option<Entry> {
        let entry = self.shared.as_ref()?.get(&ticket.key, ticket.rule.lasts()).await?;
        entry.left()?;
        self.memory.put(ticket.key, entry.clone());
        Some(entry)
    }

    fn hit(&self, ticket: &Ticket, entry: Entry, level: &'static str) -> Look {
        let age = entry.age();
        let is_stale = age >= ticket.rule.ttl;
        count(&ticket.rule, if is_stale { "stale" } else { level });
        let refresh = is_stale.then(|| self.refresh(ticket)).flatten();
        Look::Hit(Hit { message: entry.bytes, age, refresh })
    }

    /// The duty to fetch a result anew, unless somebody has it, or too many are under way.
    fn refresh(&self, ticket: &Ticket) -> Option<Fetch> {
        let permit = Arc::clone(&self.refreshes).try_acquire_owned().ok()?;
        match self.flights.join(ticket.key) {
            Joined::Lead(flight) => Some(Fetch { flight, refreshing: Some(permit) }),
            Joined::Follow(_) => None,
        }
    }

    /// Takes what another replica has fetched anew, if it has.
    pub(crate) async fn refreshed_elsewhere(&self, ticket: &Ticket, fetch: Fetch) -> Option<Fetch> {
        match self.elsewhere(ticket).await {
            Some(entry) if entry.age() < ticket.rule.ttl => {
                fetch.flight.land(Landed::With(entry));
                None
            }
            _ => Some(fetch),
        }
    }

    /// Keeps a result, if it is not too large.
    pub(crate) async fn keep(&self, ticket: &Ticket, fetch: Fetch, bytes: Bytes) {
        let settings = **self.settings.load();
        if !settings.enabled || bytes.len() as u64 > settings.entry_bytes_max {
            return self.forget(ticket, fetch).await;
        }
        // A copy: the bytes may be part of a buffer that is much larger, and would hold all of it.
        let bytes = Bytes::copy_from_slice(&bytes);
        let entry = Entry { bytes, born: ticket.began, lasts: ticket.rule.lasts() };
        self.memory.put(ticket.key, entry.clone());
        fetch.flight.land(Landed::With(entry.clone()));
        metrics::counter!("edge_cache_stored_total", "item" => ticket.rule.item.clone())
            .increment(1);
        metrics::gauge!("edge_cache_bytes").set(bytes_as_metric(self.memory.bytes()));
        if let Some(shared) = &self.shared {
            shared.put(&ticket.key, &entry).await;
        }
    }

    /// Keeps nothing, nor what was there: the service does not say it any more.
    pub(crate) async fn forget(&self, ticket: &Ticket, fetch: Fetch) {
        if fetch.refreshing.is_none() {
            return fetch.fail();
        }
        self.memory.remove(&ticket.key);
        fetch.fail();
        if let Some(shared) = &self.shared {
            shared.remove(&ticket.key).await;
        }
    }

    /// Begins a call that makes what is tagged so outdated. It is carried out within `timeout` or not at all.
    pub(crate) fn writing(&self, tags: &[Tag], timeout: Duration) -> Writing {
        self.tags.writing(tags.to_vec(), timeout)
    }
}

impl Fetch {
    /// There is nothing for those who wait: they call themselves.
    pub(crate) fn fail(self) {
        self.flight.land(Landed::Empty);
    }
}

impl Ticket {
    /// A ticket for the same, from now on.
    pub(crate) fn again(&self) -> Self {
        Self { began: Instant::now(), ..self.clone() }
    }
}

impl Rule {
    /// How long a result is of use.
    fn lasts(&self) -> Duration {
        self.ttl + self.stale
    }
}

fn miss(ticket: &Ticket, fetch: Option<Fetch>) -> Look {
    count(&ticket.rule, "miss");
    Look::Miss(fetch)
}

fn count(rule: &Rule, outcome: &'static str) {
    metrics::counter!("edge_cache_lookups_total", "item" => rule.item.clone(), "outcome" => outcome)
        .increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "a metric need not be exact to the byte")]
const fn bytes_as_metric(bytes: u64) -> f64 {
    bytes as f64
}
