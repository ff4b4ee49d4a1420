//! Single flight: one of several concurrent requests for the same result fetches it; the others
//! wait for it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{key::CacheKey, memory::CacheEntry};

/// How a fetch ended for its followers.
#[derive(Clone, Debug)]
pub(super) enum FetchOutcome {
    Entry(CacheEntry),
    /// It ended in something that is not shared: an error, or a request for input.
    Empty,
    /// The leader was dropped. A follower may take over.
    Abandoned,
}

/// The result of a fetch, or nothing while it is under way.
type OutcomeReceiver = watch::Receiver<Option<FetchOutcome>>;

#[derive(Debug, Default)]
pub(super) struct InflightFetches {
    by_key: Mutex<HashMap<CacheKey, OutcomeReceiver>>,
}

/// This request's part in a fetch.
pub(super) enum Joined {
    Leader(Inflight),
    Follower(Follower),
}

impl InflightFetches {
    /// Follows the fetch under way for this key, or leads a new one.
    pub(super) fn join(self: &Arc<Self>, key: CacheKey) -> Joined {
        match self.lock().entry(key) {
            Entry::Occupied(inflight) => Joined::Follower(Follower(inflight.get().clone())),
            Entry::Vacant(slot) => {
                let (outcome, receiver) = watch::channel(None);
                slot.insert(receiver);
                Joined::Leader(Inflight { key, outcome, fetches: Arc::clone(self) })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, OutcomeReceiver>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leader's part in a fetch. When it is dropped, a follower takes over.
#[derive(Debug)]
pub(super) struct Inflight {
    key: CacheKey,
    outcome: watch::Sender<Option<FetchOutcome>>,
    fetches: Arc<InflightFetches>,
}

impl Inflight {
    /// Ends the fetch. The caller must have stored an entry in memory before.
    pub(super) fn complete(self, outcome: FetchOutcome) {
        self.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.fetches.lock().remove(&self.key);
    }
}

/// A request that waits for another one's fetch.
pub(super) struct Follower(OutcomeReceiver);

impl Follower {
    pub(super) async fn outcome(mut self) -> FetchOutcome {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(FetchOutcome::Abandoned),
            Err(_) => FetchOutcome::Abandoned,
        }
    }
}
