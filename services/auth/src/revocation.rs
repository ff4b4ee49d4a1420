//! Revocations: tokens that are rejected before they expire.

use std::{
    io, mem,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use drawbridge_proto::auth::v1::{TokenSet, token_set::Which};
use redis::RedisError;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    authn::AccessToken,
    metrics::{REVOCATIONS, REVOCATIONS_READABLE},
};

pub(crate) use self::list::RevocationSummary;
use self::{file::RevocationsFile, list::RevocationList, shared::SharedRevocations};

mod file;
mod list;
mod shared;

/// How long a revocation is stored. No issuer's access tokens live longer.
pub(crate) const REMEMBERED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// The maximum number of revocations.
const REVOCATIONS_MAX: usize = 100_000;
/// How often the shared list is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// After this long without a successful poll, the local copy is too old to trust.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long after a revocation it is not missed in the shared list.
const RECENT_SECONDS: u64 = 2;

/// Whether a token is revoked is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the revocation list cannot be read")]
pub(crate) struct Unreadable;

/// Tokens could not be revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    /// The request does not name the tokens.
    #[error("the request must name an issuer and a subject, a client or a token id")]
    Incomplete,
    /// The limit is reached.
    #[error("the limit of {REVOCATIONS_MAX} revocations is reached")]
    TooMany,
    /// The shared list cannot be written.
    #[error("the revocation list cannot be written")]
    Unwritable(#[from] RedisError),
    /// The tokens are revoked in memory, but the file cannot be written.
    #[error("the tokens are revoked until auth stops: the file of revocations cannot be written")]
    Unsaved(#[from] io::Error),
}

/// Stored revocations cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RevocationsError {
    /// The Redis URL is invalid.
    #[error("invalid Redis URL")]
    Redis(#[from] RedisError),
    /// The file cannot be read.
    #[error("cannot read the revocations in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The revocations in force: shared by all replicas through Redis, or local to this replica.
#[derive(Debug)]
pub(crate) struct Revocations {
    list: RwLock<RevocationList>,
    shared: Option<SharedRevocations>,
    file: Option<RevocationsFile>,
    /// When the last successful poll of the shared list began.
    polled_at: RwLock<Option<Instant>>,
    summary: watch::Sender<RevocationSummary>,
    /// Whether the list can be read.
    readable: watch::Sender<bool>,
    /// Whether this replica has changed the shared list since it was read. If Redis loses the
    /// change, the version is again the one that was read.
    is_changed: AtomicBool,
}

impl Revocations {
    /// Opens the revocations in this Redis and in this file.
    pub(crate) fn new(
        redis_url: Option<&SecretString>,
        file: Option<&Path>,
    ) -> Result<Arc<Self>, RevocationsError> {
        if redis_url.is_none() && file.is_none() {
            tracing::warn!(
                "revocations apply to this replica only and are lost at exit: set --redis-url"
            );
        }
        let opened = file.map(|path| {
            let failed = |source| RevocationsError::File { path: path.to_owned(), source };
            RevocationsFile::open(path, oldest()).map_err(failed)
        });
        let (file, revoked) = opened.transpose()?.unzip();
        let revocations = Self {
            list: RwLock::default(),
            shared: redis_url.map(SharedRevocations::new).transpose()?,
            polled_at: RwLock::default(),
            summary: watch::Sender::default(),
            readable: watch::Sender::new(redis_url.is_none()),
            is_changed: AtomicBool::new(false),
            file,
        };
        revocations.add(&revoked.unwrap_or_default());
        Ok(Arc::new(revocations))
    }

    /// Notifies of changes of the revocations, after they take effect.
    pub(crate) fn subscribe(&self) -> watch::Receiver<RevocationSummary> {
        self.summary.subscribe()
    }

    /// Whether the list can be read, now and after each change. While it cannot, no token is
    /// accepted.
    pub(crate) fn readable(&self) -> watch::Receiver<bool> {
        self.readable.subscribe()
    }

    /// Whether a token is revoked.
    pub(crate) fn contains(&self, token: &AccessToken) -> Result<bool, Unreadable> {
        if self.is_stale() {
            return Err(Unreadable);
        }
        Ok(self.read().contains(token))
    }

    /// Whether the shared list was not read for too long.
    fn is_stale(&self) -> bool {
        let polled_at = *self.polled_at.read().unwrap_or_else(PoisonError::into_inner);
        self.shared.is_some() && polled_at.is_none_or(|at| at.elapsed() > STALE_AFTER)
    }

    /// Revokes these tokens on every replica. Returns the time of the revocation in seconds since
    /// 1970.
    pub(crate) async fn revoke(&self, tokens: TokenSet) -> Result<u64, RevokeError> {
        let name = match &tokens.which {
            Some(Which::Subject(name) | Which::ClientId(name) | Which::TokenId(name)) => name,
            None => return Err(RevokeError::Incomplete),
        };
        if name.is_empty() || tokens.issuer.is_empty() {
            return Err(RevokeError::Incomplete);
        }
        if self.read().len() >= REVOCATIONS_MAX {
            return Err(RevokeError::TooMany);
        }
        let at = now();
        if let Some(shared) = &self.shared {
            shared.add([(&tokens, at)]).await?;
            self.is_changed.store(true, Ordering::Relaxed);
        }
        self.add(&[(tokens, at)]);
        if let Some(file) = &self.file {
            file.write(|| self.read().clone()).await?;
        }
        Ok(at)
    }

    fn read(&self) -> RwLockReadGuard<'_, RevocationList> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, revoked: &[(TokenSet, u64)]) {
        self.update(|list| {
            for (tokens, at) in revoked {
                list.add(tokens, *at);
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut RevocationList)) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut list);
        REVOCATIONS.get().set(u32::try_from(list.len()).unwrap_or(u32::MAX));
        let summary = list.summary();
        drop(list);
        self.summary.send_if_modified(|now| mem::replace(now, summary) != summary);
    }

    /// Polls the shared list until `stopping`.
    pub(crate) async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        let Some(shared) = &self.shared else { return };
        let (mut known, mut was_readable) = (None, None);
        let mut expired_to = 0;
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(interval.tick()).await.is_some() {
            let begun = Instant::now();
            let polled = self.poll(shared, &mut known).await;
            if polled.is_ok() {
                *self.polled_at.write().unwrap_or_else(PoisonError::into_inner) = Some(begun);
            }
            let is_readable = !self.is_stale();
            self.readable.send_if_modified(|now| mem::replace(now, is_readable) != is_readable);
            if was_readable.replace(polled.is_ok()) != Some(polled.is_ok()) {
                Self::report(&polled);
            }
            let oldest = oldest();
            if expired_to != oldest {
                self.update(|list| list.expire(oldest));
                expired_to = oldest;
            }
        }
    }

    fn report(polled: &Result<(), RedisError>) {
        REVOCATIONS_READABLE.get().set(if polled.is_ok() { 1 } else { 0 });
        match polled {
            Ok(()) => tracing::info!("the revocation list is readable"),
            Err(error) => {
                tracing::error!(
                    %error,
                    "the revocation list cannot be read; after a second all tokens are rejected"
                );
            }
        }
    }

    /// Reads the list if its version changed. Revocations that the list has lost, for example in a
    /// fail-over of Redis, are added to it again.
    async fn poll(
        &self,
        shared: &SharedRevocations,
        known: &mut Option<u64>,
    ) -> Result<(), RedisError> {
        let version = shared.version().await?;
        if self.is_changed.swap(false, Ordering::Relaxed) || *known != Some(version) {
            let found = shared.read(oldest()).await?;
            self.add(&found);
            let missing = self.missing_in(&found);
            let is_recent = |(_, at): &(TokenSet, u64)| at.saturating_add(RECENT_SECONDS) > now();
            // A recent one may have been added after the list was read.
            *known = (!missing.iter().any(is_recent)).then_some(version);
            if known.is_some() && !missing.is_empty() {
                tracing::warn!(count = missing.len(), "restoring revocations that Redis has lost");
                shared.add(missing.iter().map(|(tokens, at)| (tokens, *at))).await?;
            }
        }
        Ok(())
    }

    /// The revocations that the shared list does not have.
    fn missing_in(&self, found: &[(TokenSet, u64)]) -> Vec<(TokenSet, u64)> {
        let list = self.read();
        if list.len() > found.len() { list.missing_in(found, oldest()) } else { Vec::new() }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time of the oldest revocations that apply: a full hour, so that all replicas drop the same ones
/// at the same time and their epochs agree.
fn oldest() -> u64 {
    let oldest = now().saturating_sub(REMEMBERED_FOR.as_secs());
    oldest - oldest % 3600
}

#[cfg(test)]
mod tests {
    use drawbridge_proto::auth::v1::Principal;

    use super::*;
    use crate::Identity;

    fn token(
        issuer: &str,
        subject: &str,
        client: &str,
        id: &str,
        issued_at: Option<u64>,
    ) -> AccessToken {
        let principal = Principal {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            client_id: client.to_owned(),
            ..Principal::default()
        };
        let identity = Identity { principal, ..Identity::default() };
        AccessToken { identity, id: Some(id.to_owned()), issued_at, expires_at: u64::MAX }
    }

    async fn revoked(which: Which) -> Arc<Revocations> {
        let revocations = Revocations::new(None, None).unwrap();
        revocations.revoke(TokenSet { issuer: "a".to_owned(), which: Some(which) }).await.unwrap();
        revocations
    }

    #[tokio::test]
    async fn a_revocation_applies_to_earlier_tokens_of_one_issuer() {
        let (before, after) = (now() - 60, now() + 60);
        for which in [
            Which::Subject("alice".into()),
            Which::ClientId("client".into()),
            Which::TokenId("1".into()),
        ] {
            let revocations = revoked(which.clone()).await;
            let has = |token: &AccessToken| revocations.contains(token).unwrap();
            assert!(has(&token("a", "alice", "client", "1", Some(before))), "{which:?}");
            assert!(has(&token("a", "alice", "client", "1", None)), "{which:?}");
            assert!(!has(&token("b", "alice", "client", "1", Some(before))), "{which:?}");
            assert!(!has(&token("a", "bob", "other", "2", Some(before))), "{which:?}");
            let later = has(&token("a", "alice", "client", "1", Some(after)));
            assert_eq!(later, matches!(which, Which::TokenId(_)), "{which:?}");
        }
    }

    /// Signing keys can outlive a restart, which made revoked tokens valid again.
    #[tokio::test]
    async fn a_revocations_file_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.json");
        let named = |which| TokenSet { issuer: "a".to_owned(), which: Some(which) };
        let before = Revocations::new(None, Some(&path)).unwrap();
        for which in [
            Which::Subject("alice".into()),
            Which::ClientId("client".into()),
            Which::TokenId("1".into()),
        ] {
            before.revoke(named(which)).await.unwrap();
        }
        let after = Revocations::new(None, Some(&path)).unwrap();
        let has = |subject, client, id| {
            after.contains(&token("a", subject, client, id, Some(now() - 60))).unwrap()
        };
        assert!(
            has("alice", "x", "x")
                && has("x", "client", "x")
                && has("x", "x", "1")
                && !has("x", "x", "x")
        );
        // Revocations older than the retention period are dropped.
        let old = oldest() - 1;
        std::fs::write(&path, format!(r#"[{{"issuer":"a","subject":"alice","at":{old}}}]"#))
            .unwrap();
        let later = Revocations::new(None, Some(&path)).unwrap();
        assert!(!later.contains(&token("a", "alice", "x", "x", Some(0))).unwrap());
        std::fs::write(&path, "{").unwrap();
        let broken = Revocations::new(None, Some(&path)).unwrap_err().to_string();
        assert!(broken.starts_with("cannot read the revocations in "), "{broken}");
    }

    #[tokio::test]
    async fn a_revocation_must_name_its_tokens() {
        let revocations = Revocations::new(None, None).unwrap();
        for (issuer, which) in [
            ("a", None),
            ("", Some(Which::Subject("alice".into()))),
            ("a", Some(Which::Subject(String::new()))),
        ] {
            let refused = revocations.revoke(TokenSet { issuer: issuer.to_owned(), which }).await;
            assert!(matches!(refused, Err(RevokeError::Incomplete)), "{refused:?}");
        }
    }
}
