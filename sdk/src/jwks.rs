//! Keys of a token issuer: fetched when the first one is asked for, and kept fresh from then on.

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
    source::{Found, Memory},
};
use crate::{fetch::FetchError, telemetry::error_chain};

pub use self::{key::VerificationKey, source::Source};

mod key;
mod source;
#[cfg(test)]
mod tests;

/// How long keys serve, and how often they are fetched.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For how long keys are fresh when their issuer does not say.
    pub fresh: Duration,
    /// The least freshness, whatever the issuer says.
    pub fresh_min: Duration,
    /// The most freshness, whatever the issuer says.
    pub fresh_max: Duration,
    /// For how long keys that are not fresh any more serve while their issuer does not answer.
    pub stale_max: Duration,
    /// The least time between two fetches, so that made-up key ids are no lever.
    pub refetch_interval: Duration,
    /// The least time after a fetch that failed.
    pub retry_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(300),
            fresh_min: Duration::from_secs(30),
            fresh_max: Duration::from_secs(3600),
            // By then, access tokens that were issued before the issuer went away have mostly ended.
            stale_max: Duration::from_secs(3600),
            refetch_interval: Duration::from_secs(5),
            retry_interval: Duration::from_secs(1),
        }
    }
}

/// Why a key cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JwksError {
    /// The issuer has no such key.
    #[error("the issuer has no key with this id")]
    UnknownKey,
    /// The key set, or the metadata that names it, could not be fetched.
    #[error(transparent)]
    Fetch(#[from] Arc<FetchError>),
    /// The key set could not be had from a peer.
    #[error("cannot get {url}")]
    Peer {
        /// The key set's URL.
        url: Url,
        /// What went wrong.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The key set could not be read from its file.
    #[error("cannot read the key set {}", path.display())]
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
    /// The issuer is no URL, so it has no metadata.
    #[error("the issuer {issuer:?} is no URL")]
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
/// Keys in hand serve until they are too old, and are refreshed in the background before they cease to be fresh.
/// Only a key id that is not in hand is waited for.
#[derive(Clone, Debug)]
pub struct Jwks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: Source,
    limits: Limits,
    keys: ArcSwap<Keys>,
    /// Held while a fetch is under way, so that there is one at a time.
    last: Mutex<Last>,
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
struct Last {
    tried: Option<Instant>,
    failure: Option<JwksError>,
    memory: Memory,
}

impl Jwks {
    /// The key set from `source`. Nothing is fetched before the first key is asked for.
    #[must_use]
    pub fn new(source: Source, limits: Limits) -> Self {
        Self::telling(source, limits, watch::Sender::new(0))
    }

    /// The same, where `changes` ticks when a key is withdrawn or replaced: what was verified with it is not to be
    /// relied on any more.
    #[must_use]
    pub fn telling(source: Source, limits: Limits, changes: watch::Sender<u64>) -> Self {
        let inner = Inner {
            source,
            limits,
            keys: ArcSwap::default(),
            last: Mutex::default(),
            changes,
            refreshing: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The key with this id.
    ///
    /// # Errors
    /// [`JwksError::UnknownKey`] when the issuer has none; others when the key set cannot be fetched and the key
    /// is not in hand, or too old.
    pub async fn key(&self, id: &str) -> Result<Arc<VerificationKey>, JwksError> {
        let in_hand = self.inner.keys.load().by_id.get(id).cloned();
        if let Some(key) = in_hand
            && self.inner.usable_until().is_some_and(|until| Instant::now() < until)
        {
            return Ok(key);
        }
        let fetched = self.inner.refresh().await;
        self.keep_fresh();
        fetched?;
        self.inner.keys.load().by_id.get(id).cloned().ok_or(JwksError::UnknownKey)
    }

    /// Until when a signature that these keys have verified may be relied on without asking again.
    #[must_use]
    pub fn remember_until(&self) -> Instant {
        let now = Instant::now();
        let fresh_until = self.inner.keys.load().fresh_until.unwrap_or(now);
        // While the issuer does not answer, nothing more is learnt by asking again and again.
        let while_stale =
            self.inner.usable_until().unwrap_or(now).min(now + self.inner.limits.refetch_interval);
        fresh_until.max(while_stale)
    }

    /// Refreshes the keys in the background from now on, for as long as somebody holds them.
    fn keep_fresh(&self) {
        self.inner.refreshing.get_or_init(|| {
            let inner = Arc::downgrade(&self.inner);
            tokio::spawn(keep_fresh(inner)).abort_handle()
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

async fn keep_fresh(inner: Weak<Inner>) {
    loop {
        let Some(wait) = inner.upgrade().map(|inner| inner.refresh_in()) else { return };
        tokio::time::sleep(wait).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.refresh().await {
            let left =
                inner.usable_until().map(|until| until.saturating_duration_since(Instant::now()));
            let seconds_left = left.unwrap_or_default().as_secs();
            tracing::warn!(
                error = error_chain(&error),
                seconds_left,
                "an issuer's keys cannot be refreshed; those in hand serve on"
            );
        }
    }
}

impl Inner {
    /// Until when the keys in hand serve, if there are any.
    fn usable_until(&self) -> Option<Instant> {
        self.keys.load().fresh_until.map(|until| until + self.limits.stale_max)
    }

    /// When the next refresh is due: while the keys are still fresh, or else at once.
    fn refresh_in(&self) -> Duration {
        let left = self
            .keys
            .load()
            .fresh_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        left.unwrap_or_default().mul_f32(0.8).max(self.limits.refetch_interval)
    }

    /// Fetches the keys, unless somebody has just done so; then the outcome is that fetch's.
    async fn refresh(&self) -> Result<(), JwksError> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        let pause = match last.failure {
            Some(_) => self.limits.retry_interval,
            None => self.limits.refetch_interval,
        };
        if last.tried.is_some_and(|tried| tried >= asked || tried.elapsed() < pause) {
            return last.failure.clone().map_or(Ok(()), Err);
        }
        last.tried = Some(Instant::now());
        let fetched = self.source.fetch(&mut last.memory).await;
        last.failure = fetched.map(|found| self.store(found)).err();
        last.failure.clone().map_or(Ok(()), Err)
    }

    fn store(&self, found: Found) {
        let before = self.keys.load_full();
        let (by_id, max_age) = match found {
            Found::Set { keys, max_age } => (keys.usable(), max_age),
            Found::NotModified { max_age } => (before.by_id.clone(), max_age),
        };
        let Limits { fresh, fresh_min, fresh_max, .. } = self.limits;
        let fresh_for = max_age.unwrap_or(fresh).clamp(fresh_min, fresh_max);
        let changed = before.by_id.iter().any(|(id, key)| by_id.get(id) != Some(key));
        self.keys.store(Arc::new(Keys { by_id, fresh_until: Some(Instant::now() + fresh_for) }));
        if changed {
            tracing::info!("an issuer has withdrawn or replaced a key");
            self.changes.send_modify(|count| *count += 1);
        }
    }
}
