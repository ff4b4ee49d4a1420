use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache, policy::EvictionPolicy};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{
    error::CredentialsError,
    lease::{Certificate, DatabaseLease, Lifetime, Secret},
    source::{Granted, SessionToken, Source},
};

/// The most roles and secrets that one holder has at once.
const LEASES_MAX: u64 = 64;
/// For how long a secret is not read again.
const SECRET_FOR: Duration = Duration::from_secs(60);

/// What one holder has.
///
/// INVARIANT: a lease is taken with its session's token, so it ends with it, whatever else goes wrong.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) token: SessionToken,
    /// The transaction token that it was opened with, if it is a caller's.
    pub(super) opened_with: Option<Arc<SecretString>>,
    pub(super) term: Lifetime,
    pub(super) leases: Cache<String, Arc<DatabaseLease>>,
    pub(super) secrets: Cache<String, Arc<Secret>>,
    /// By role and common name.
    pub(super) certificates: Cache<(String, String), Arc<Certificate>>,
    pub(super) ended: CancellationToken,
}

impl Session {
    pub(super) fn new(
        granted: Granted<SessionToken>,
        opened_with: Option<Arc<SecretString>>,
    ) -> Self {
        Self {
            token: granted.of,
            opened_with,
            term: Lifetime::new(granted.duration, granted.renewable),
            leases: Cache::builder()
                .max_capacity(LEASES_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(AtItsEnd(None))
                .build(),
            secrets: Cache::builder()
                .max_capacity(LEASES_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(SECRET_FOR)
                .build(),
            certificates: Cache::builder()
                .max_capacity(LEASES_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(AtItsEnd(None))
                .build(),
            ended: CancellationToken::new(),
        }
    }

    /// Forgets a secret, unless another has come in its place.
    pub(super) async fn forget(&self, name: &str, stale: &Arc<Secret>) {
        let current = self.secrets.get(name).await;
        if current.is_some_and(|current| Arc::ptr_eq(&current, stale)) {
            self.secrets.invalidate(name).await;
        }
    }

    /// Renews what is due: the session, then its leases. An error is one that ends the session.
    pub(super) async fn renew(&self, source: &Source) -> Result<(), CredentialsError> {
        if self.term.is_due() {
            match source.renew_session(&self.token).await {
                Ok(duration) => self.term.renewed(duration),
                // It lasts for a while yet.
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error),
            }
        }
        for (role, lease) in &self.leases {
            if !lease.term.is_due() {
                continue;
            }
            match source.renew_lease(&self.token, &lease.id).await {
                Ok(duration) => lease.term.renewed(duration),
                Err(error) if error.is_retryable() => {}
                Err(_) => {
                    self.leases.invalidate(role.as_str()).await;
                    lease.ended.cancel();
                }
            }
        }
        Ok(())
    }

    /// The leases of this session that can be used.
    pub(super) fn soonest_end(&self) -> Option<Duration> {
        self.leases.iter().map(|(_, lease)| lease.term.left().min(self.term.left())).min()
    }
}

/// What is kept for a while.
pub(super) trait Lasting {
    fn left(&self) -> Duration;
}

impl Lasting for Arc<Session> {
    fn left(&self) -> Duration {
        self.term.left()
    }
}

impl Lasting for Arc<DatabaseLease> {
    fn left(&self) -> Duration {
        self.term.left()
    }
}

/// A certificate cannot be renewed: when that would be due, another is issued.
impl Lasting for Arc<Certificate> {
    fn left(&self) -> Duration {
        self.term.until_renewal()
    }
}

/// Keeps an entry until it is over, and no longer than so long after its last use.
pub(super) struct AtItsEnd(pub(super) Option<Duration>);

impl AtItsEnd {
    fn left(&self, value: &impl Lasting) -> Duration {
        let left = value.left();
        self.0.map_or(left, |idle| left.min(idle))
    }
}

impl<K, V: Lasting> Expiry<K, V> for AtItsEnd {
    fn expire_after_create(&self, _: &K, value: &V, _: Instant) -> Option<Duration> {
        Some(self.left(value))
    }

    fn expire_after_read(
        &self,
        _: &K,
        value: &V,
        _: Instant,
        _: Option<Duration>,
        _: Instant,
    ) -> Option<Duration> {
        Some(self.left(value))
    }
}
