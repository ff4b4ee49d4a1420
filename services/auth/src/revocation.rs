//! Tokens that are refused although they would still be valid.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use drawbridge_proto::auth::v1::{TokenSet, token_set::Which};
use drawbridge_sdk::Readiness;
use metrics::gauge;
use redis::RedisError;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::authn::Token;

use self::{file::RevocationsFile, shared::Shared};

mod file;
mod shared;

/// For how long a revocation is remembered. No issuer's access tokens live that long.
pub(crate) const REMEMBERED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many are remembered at once.
const REVOCATIONS_MAX: usize = 100_000;
/// How often the shared list is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without a look for so long, nobody can say what has been revoked since.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Nobody can say whether a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the list of revocations cannot be read")]
pub(crate) struct Unreadable;

/// Tokens could not be revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    /// The request does not say which.
    #[error("an issuer and a subject, a client or a token id are needed")]
    Incomplete,
    /// There are too many already.
    #[error("there are {REVOCATIONS_MAX} revocations already")]
    TooMany,
    /// The shared list cannot be written.
    #[error("the list of revocations cannot be written")]
    Unwritable(#[from] RedisError),
    /// They are revoked, and the file of revocations cannot be written.
    #[error("the tokens are revoked until auth ends: the file of revocations cannot be written")]
    Unsaved(#[from] io::Error),
}

/// Revocations of before cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RevocationsError {
    /// The Redis URL is not one.
    #[error("cannot use the Redis URL")]
    Redis(#[from] RedisError),
    /// The file cannot be read.
    #[error("cannot read the revocations in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is revoked: for each issuer by subject, client and token id, when, in seconds since 1970.
#[derive(Clone, Debug, Default)]
struct List {
    issuers: HashMap<String, OfIssuer>,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct OfIssuer {
    subjects: HashMap<String, u64>,
    clients: HashMap<String, u64>,
    tokens: HashMap<String, u64>,
}

impl List {
    /// Adds tokens. Of two revocations of the same, the later one counts.
    fn add(&mut self, tokens: TokenSet, at: u64) {
        let of_issuer = self.issuers.entry(tokens.issuer).or_default();
        let (revoked, name) = match tokens.which {
            Some(Which::Subject(subject)) => (&mut of_issuer.subjects, subject),
            Some(Which::ClientId(client)) => (&mut of_issuer.clients, client),
            Some(Which::TokenId(id)) => (&mut of_issuer.tokens, id),
            None => return,
        };
        let known = revoked.len();
        let latest = revoked.entry(name).or_default();
        *latest = at.max(*latest);
        self.len += revoked.len() - known;
    }

    /// All of them, and when each was.
    fn entries(&self) -> impl Iterator<Item = (TokenSet, u64)> {
        self.issuers.iter().flat_map(|(issuer, of)| {
            let subjects = of.subjects.iter().map(|(name, at)| (Which::Subject(name.clone()), *at));
            let clients = of.clients.iter().map(|(name, at)| (Which::ClientId(name.clone()), *at));
            let tokens = of.tokens.iter().map(|(name, at)| (Which::TokenId(name.clone()), *at));
            let all = subjects.chain(clients).chain(tokens);
            all.map(|(which, at)| (TokenSet { issuer: issuer.clone(), which: Some(which) }, at))
        })
    }

    fn has(&self, token: &Token) -> bool {
        let principal = &token.identity.principal;
        let Some(of_issuer) = self.issuers.get(&principal.issuer) else { return false };
        // A token that does not say when it was issued, and one of the same second, count as older.
        let is_older = |at: &u64| token.issued_at.is_none_or(|issued_at| issued_at <= *at);
        of_issuer.subjects.get(&principal.subject).is_some_and(is_older)
            || of_issuer.clients.get(&principal.client_id).is_some_and(is_older)
            || token.id.as_ref().is_some_and(|id| of_issuer.tokens.contains_key(id))
    }
}

/// The revocations in force: shared by all replicas through Redis, or this replica's alone.
#[derive(Debug)]
pub(crate) struct Revocations {
    list: RwLock<List>,
    shared: Option<Shared>,
    file: Option<RevocationsFile>,
    /// When the shared list was last known to be as it is here.
    looked: RwLock<Option<Instant>>,
    changes: watch::Sender<u64>,
}

impl Revocations {
    /// The revocations at this Redis, and in this file.
    pub(crate) fn new(
        redis_url: Option<&SecretString>,
        file: Option<&Path>,
    ) -> Result<Arc<Self>, RevocationsError> {
        if redis_url.is_none() && file.is_none() {
            tracing::warn!(
                "revocations are this replica's alone and end with it: there is no --redis-url"
            );
        }
        let since = now().saturating_sub(REMEMBERED_FOR.as_secs());
        let opened = file.map(|path| {
            let failed = |source| RevocationsError::File { path: path.to_owned(), source };
            RevocationsFile::open(path, since).map_err(failed)
        });
        let (file, revoked) = opened.transpose()?.unzip();
        let revocations = Self {
            list: RwLock::default(),
            shared: redis_url.map(Shared::new).transpose()?,
            looked: RwLock::default(),
            changes: watch::Sender::new(0),
            file,
        };
        revocations.add(revoked.unwrap_or_default());
        Ok(Arc::new(revocations))
    }

    /// Ticks when something has been revoked.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether a token is revoked.
    pub(crate) fn has(&self, token: &Token) -> Result<bool, Unreadable> {
        if self.shared.is_some() {
            let looked = *self.looked.read().unwrap_or_else(PoisonError::into_inner);
            if looked.is_none_or(|looked| looked.elapsed() > STALE_AFTER) {
                return Err(Unreadable);
            }
        }
        Ok(self.list.read().unwrap_or_else(PoisonError::into_inner).has(token))
    }

    /// Refuses these tokens from now on, on every replica. Says when that was, in seconds since 1970.
    pub(crate) async fn revoke(&self, tokens: TokenSet) -> Result<u64, RevokeError> {
        let name = match &tokens.which {
            Some(Which::Subject(name) | Which::ClientId(name) | Which::TokenId(name)) => name,
            None => return Err(RevokeError::Incomplete),
        };
        if name.is_empty() || tokens.issuer.is_empty() {
            return Err(RevokeError::Incomplete);
        }
        if self.list.read().unwrap_or_else(PoisonError::into_inner).len >= REVOCATIONS_MAX {
            return Err(RevokeError::TooMany);
        }
        let at = now();
        if let Some(shared) = &self.shared {
            shared.add(&tokens, at).await?;
        }
        self.add([(tokens, at)]);
        if let Some(file) = &self.file {
            file.write(|| self.list.read().unwrap_or_else(PoisonError::into_inner).clone()).await?;
        }
        Ok(at)
    }

    fn add(&self, revoked: impl IntoIterator<Item = (TokenSet, u64)>) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        for (tokens, at) in revoked {
            list.add(tokens, at);
        }
        gauge!("auth_revocations").set(u32::try_from(list.len).unwrap_or(u32::MAX));
        drop(list);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Follows the shared list until `stopping`. That it cannot be read shows in `readiness`.
    pub(crate) async fn follow(self: Arc<Self>, readiness: Readiness, stopping: CancellationToken) {
        let Some(shared) = &self.shared else { return };
        let (mut known, mut readable) = (None, None);
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(interval.tick()).await.is_some() {
            let begun = Instant::now();
            let looked = self.look(shared, &mut known).await;
            if looked.is_ok() {
                *self.looked.write().unwrap_or_else(PoisonError::into_inner) = Some(begun);
            }
            if readable.replace(looked.is_ok()) != Some(looked.is_ok()) {
                self.tell(&looked, &readiness);
            }
        }
    }

    fn tell(&self, looked: &Result<(), RedisError>, readiness: &Readiness) {
        gauge!("auth_revocations_readable").set(if looked.is_ok() { 1 } else { 0 });
        match looked {
            Ok(()) => tracing::info!("the list of revocations can be read"),
            Err(error) => {
                tracing::error!(%error, "the list of revocations cannot be read; nobody is let in");
                // What was allowed while it could be read is not to be repeated.
                self.changes.send_modify(|count| *count += 1);
            }
        }
        // The log has the error, which may name hosts.
        readiness.note("revocations", looked.is_err().then(|| Unreadable.to_string()));
    }

    /// Reads the list if it has changed. What was known stays known, though the list should have lost it.
    async fn look(&self, shared: &Shared, known: &mut Option<u64>) -> Result<(), RedisError> {
        let version = shared.version().await?;
        if *known != Some(version) {
            self.add(shared.read(now().saturating_sub(REMEMBERED_FOR.as_secs())).await?);
            *known = Some(version);
        }
        Ok(())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use drawbridge_proto::auth::v1::Principal;

    use super::*;
    use crate::Identity;

    fn token(issuer: &str, subject: &str, client: &str, id: &str, issued_at: Option<u64>) -> Token {
        let principal = Principal {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            client_id: client.to_owned(),
            ..Principal::default()
        };
        let identity = Identity { principal, ..Identity::default() };
        Token { identity, id: Some(id.to_owned()), issued_at, expires_at: u64::MAX }
    }

    async fn revoked(which: Which) -> Arc<Revocations> {
        let revocations = Revocations::new(None, None).unwrap();
        revocations.revoke(TokenSet { issuer: "a".to_owned(), which: Some(which) }).await.unwrap();
        revocations
    }

    #[tokio::test]
    async fn a_revocation_is_of_one_issuers_tokens_that_were_issued_before() {
        let (before, after) = (now() - 60, now() + 60);
        for which in [
            Which::Subject("alice".into()),
            Which::ClientId("client".into()),
            Which::TokenId("1".into()),
        ] {
            let revocations = revoked(which.clone()).await;
            let has = |token: &Token| revocations.has(token).unwrap();
            assert!(has(&token("a", "alice", "client", "1", Some(before))), "{which:?}");
            assert!(has(&token("a", "alice", "client", "1", None)), "{which:?}");
            assert!(!has(&token("b", "alice", "client", "1", Some(before))), "{which:?}");
            assert!(!has(&token("a", "bob", "other", "2", Some(before))), "{which:?}");
            let later = has(&token("a", "alice", "client", "1", Some(after)));
            assert_eq!(later, matches!(which, Which::TokenId(_)), "{which:?}");
        }
    }

    /// With keys that outlive a restart, a restart made revoked tokens good again.
    #[tokio::test]
    async fn with_a_file_a_restart_forgets_no_revocation() {
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
            after.has(&token("a", subject, client, id, Some(now() - 60))).unwrap()
        };
        assert!(
            has("alice", "x", "x")
                && has("x", "client", "x")
                && has("x", "x", "1")
                && !has("x", "x", "x")
        );
        // What is older than what is remembered is forgotten.
        let old = now() - REMEMBERED_FOR.as_secs() - 1;
        std::fs::write(&path, format!(r#"[{{"issuer":"a","subject":"alice","at":{old}}}]"#))
            .unwrap();
        let later = Revocations::new(None, Some(&path)).unwrap();
        assert!(!later.has(&token("a", "alice", "x", "x", Some(0))).unwrap());
        std::fs::write(&path, "{").unwrap();
        let broken = Revocations::new(None, Some(&path)).unwrap_err().to_string();
        assert!(broken.starts_with("cannot read the revocations in "), "{broken}");
    }

    #[tokio::test]
    async fn a_revocation_says_whose_tokens() {
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
