//! The keys of a token issuer: fetched when the first one is requested, and refreshed in the
//! background from then on.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Mutex, watch},
    task::AbortHandle,
};
use url::Url;

use self::{
    key::KeySet,
    metrics::JwksMetrics,
    source::{FetchOutcome, FetchState},
};
use crate::fetch::FetchError;
use drawbridge_runtime::error_chain;

pub use self::{
    key::{UsableKey, VerificationKey, usable_keys},
    private_server::PrivateServer,
    source::{KeySource, metadata_urls},
};

mod key;
mod metrics;
mod private_server;
mod source;
#[cfg(test)]
mod tests;

/// How long keys are used, and how often they are fetched.
#[derive(Clone, Copy, Debug)]
pub struct JwksLimits {
    /// How long keys are fresh if their issuer does not specify it.
    pub fresh: Duration,
    /// The shortest freshness, whatever the issuer specifies.
    pub fresh_min: Duration,
    /// The longest freshness, whatever the issuer specifies.
    pub fresh_max: Duration,
    /// How long stale keys are used while their issuer does not answer.
    pub stale_max: Duration,
    /// The shortest time between two fetches, so that unknown key ids cannot cause more.
    pub refetch_interval: Duration,
    /// The shortest time after a failed fetch.
    pub retry_interval: Duration,
}

impl Default for JwksLimits {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(300),
            fresh_min: Duration::from_secs(30),
            fresh_max: Duration::from_secs(3600),
            // By then, most access tokens that were issued before the issuer became unavailable
            // have expired.
            stale_max: Duration::from_secs(3600),
            refetch_interval: Duration::from_secs(5),
            retry_interval: Duration::from_secs(1),
        }
    }
}

/// Why a key is unavailable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JwksError {
    /// The issuer has no such key.
    #[error("the issuer has no key with this id")]
    UnknownKey,
    /// The key set, or the metadata that names it, could not be fetched.
    #[error(transparent)]
    Fetch(#[from] Arc<FetchError>),
    /// The key set could not be fetched from a peer.
    #[error("cannot fetch {url}")]
    Peer {
        /// The key set's URL.
        url: Url,
        /// What went wrong.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the key set, or one that fetching it needs, cannot be read.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: Arc<std::io::Error>,
    },
    /// The metadata is another issuer's (RFC 8414 section 3.3).
    #[error("{url} is the metadata of another issuer")]
    OtherIssuer {
        /// The metadata's URL.
        url: Url,
    },
    /// The issuer is not a URL, so it has no metadata.
    #[error("the issuer {issuer:?} is not a URL")]
    NoUrl {
        /// The issuer.
        issuer: String,
    },
}

impl From<FetchError> for JwksError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Arc::new(error))
    }
}

/// The key set of one issuer.
///
/// Cached keys are used until they are too old, and are refreshed in the background before they
/// become stale. Only a request for an uncached key id waits for a fetch.
#[derive(Clone, Debug)]
pub struct Jwks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: KeySource,
    metrics: JwksMetrics,
    limits: JwksLimits,
    keys: ArcSwap<Keys>,
    /// Locked during a fetch, so that fetches are single flight.
    last: Mutex<LastFetch>,
    changes: watch::Sender<u64>,
    refreshing: OnceLock<AbortHandle>,
}

#[derive(Debug, Default)]
struct Keys {
    by_id: KeySet,
    /// Absent before the first fetch.
    fresh_until: Option<Instant>,
}

/// The last fetch.
#[derive(Debug, Default)]
struct LastFetch {
    attempted_at: Option<Instant>,
    failure: Option<JwksError>,
    state: FetchState,
}

impl Jwks {
    /// The key set from `source`. It is fetched when the first key is requested.
    #[must_use]
    pub fn new(source: KeySource, limits: JwksLimits) -> Self {
        Self::with_change_notifier(source, limits, watch::Sender::new(0))
    }

    /// As [`Self::new`]; `changes` is incremented when a key is withdrawn or replaced: results that
    /// were verified with it are no longer valid.
    #[must_use]
    pub fn with_change_notifier(
        source: KeySource,
        limits: JwksLimits,
        changes: watch::Sender<u64>,
    ) -> Self {
        let inner = Inner {
            metrics: JwksMetrics::new(source.label()),
            source,
            limits,
            keys: ArcSwap::default(),
            last: Mutex::default(),
            changes,
            refreshing: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether both have the same source.
    #[must_use]
    pub fn has_same_source(&self, other: &Self) -> bool {
        self.inner.source.is_same(&other.inner.source)
    }

    /// The key with this id.
    ///
    /// # Errors
    /// [`JwksError::UnknownKey`] when the issuer has none; others when the key set cannot be
    /// fetched and the key is not cached, or too old.
    pub async fn key(&self, id: &str) -> Result<Arc<VerificationKey>, JwksError> {
        let cached = self.inner.keys.load().by_id.get(id).cloned();
        if let Some(key) = cached
            && self.inner.usable_until().is_some_and(|until| Instant::now() < until)
        {
            return Ok(key);
        }
        let fetched = self.inner.refresh().await;
        self.refresh_in_background();
        fetched?;
        self.inner.keys.load().by_id.get(id).cloned().ok_or(JwksError::UnknownKey)
    }

    /// Whether there are keys, and they are not too old to be used.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.inner.usable_until().is_some_and(|until| Instant::now() < until)
    }

    /// Fetches the keys before the first one is requested, once. An unknown key id causes a fetch
    /// as soon as if there had been none.
    ///
    /// # Errors
    /// When they cannot be fetched.
    pub async fn fetch_ahead(&self) -> Result<(), JwksError> {
        self.inner.refresh().await.inspect_err(|error| {
            tracing::debug!(error = error_chain(error), "keys cannot be fetched yet");
        })?;
        self.inner.last.lock().await.attempted_at = None;
        self.refresh_in_background();
        Ok(())
    }

    /// Until when a signature that was verified with these keys may be cached.
    #[must_use]
    pub fn cacheable_until(&self) -> Instant {
        let now = Instant::now();
        let fresh_until = self.inner.keys.load().fresh_until.unwrap_or(now);
        // While the issuer does not answer, verifying more often would gain nothing.
        let while_stale =
            self.inner.usable_until().unwrap_or(now).min(now + self.inner.limits.refetch_interval);
        fresh_until.max(while_stale)
    }

    /// Refreshes the keys in the background from now on, until the last clone is dropped.
    fn refresh_in_background(&self) {
        self.inner.refreshing.get_or_init(|| {
            let inner = Arc::downgrade(&self.inner);
            tokio::spawn(refresh_periodically(inner)).abort_handle()
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = self.refreshing.get() {
            task.abort();
        }
    }
}

async fn refresh_periodically(inner: Weak<Inner>) {
    loop {
        let Some(wait) = inner.upgrade().map(|inner| inner.refresh_in()) else { return };
        tokio::time::sleep(wait).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.refresh().await {
            let remaining =
                inner.usable_until().map(|until| until.saturating_duration_since(Instant::now()));
            let seconds_left = remaining.unwrap_or_default().as_secs();
            tracing::warn!(
                error = error_chain(&error),
                seconds_left,
                "an issuer's keys cannot be refreshed; the cached ones stay in use"
            );
        }
    }
}

impl Inner {
    /// Until when the cached keys may be used, if there are any.
    fn usable_until(&self) -> Option<Instant> {
        self.keys.load().fresh_until.map(|until| until + self.limits.stale_max)
    }

    /// The delay of the next refresh: while the keys are still fresh, or immediately.
    fn refresh_in(&self) -> Duration {
        let left = self
            .keys
            .load()
            .fresh_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        left.unwrap_or_default().mul_f32(0.8).max(self.limits.refetch_interval)
    }

    /// Fetches the keys, unless another task has just done so; then the outcome of that fetch is
    /// returned.
    async fn refresh(&self) -> Result<(), JwksError> {
        let requested_at = Instant::now();
        let mut last = self.last.lock().await;
        let pause = match last.failure {
            Some(_) => self.limits.retry_interval,
            None => self.limits.refetch_interval,
        };
        if last.attempted_at.is_some_and(|at| at >= requested_at || at.elapsed() < pause) {
            return last.failure.clone().map_or(Ok(()), Err);
        }
        last.attempted_at = Some(Instant::now());
        let fetched = self.source.fetch(&mut last.state).await;
        last.failure = fetched.map(|found| self.store(found)).err();
        self.metrics.record(last.failure.is_some(), self.keys.load().fresh_until);
        last.failure.clone().map_or(Ok(()), Err)
    }

    fn store(&self, found: FetchOutcome) {
        let before = self.keys.load_full();
        let (by_id, max_age) = match found {
            FetchOutcome::Set { keys, max_age } => (keys.usable(), max_age),
            FetchOutcome::NotModified { max_age } => (before.by_id.clone(), max_age),
        };
        let JwksLimits { fresh, fresh_min, fresh_max, .. } = self.limits;
        let fresh_for = max_age.unwrap_or(fresh).clamp(fresh_min, fresh_max);
        let changed = before.by_id.iter().any(|(id, key)| by_id.get(id) != Some(key));
        self.keys.store(Arc::new(Keys { by_id, fresh_until: Some(Instant::now() + fresh_for) }));
        if changed {
            tracing::info!("an issuer has withdrawn or replaced a key");
            self.changes.send_modify(|count| *count += 1);
        }
    }
}
