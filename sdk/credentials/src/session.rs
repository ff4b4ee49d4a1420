use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache, policy::EvictionPolicy};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{
    error::CredentialsError,
    grant::{Granted, SessionToken},
    lease::{DatabaseLease, IssuedCertificate, Lifetime, Secret},
    source::CredentialSource,
};

/// The most roles, and the most secrets, of one session.
const LEASES_MAX: u64 = 64;
/// How long a secret is cached.
const SECRET_TTL: Duration = Duration::from_secs(60);

/// The session of one owner.
///
/// INVARIANT: a lease is taken with its session's token, so it ends with the session, whatever else
/// fails.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) token: SessionToken,
    /// The transaction token that opened it, if it is a caller's.
    pub(super) transaction_token: Option<Arc<SecretString>>,
    pub(super) lifetime: Lifetime,
    pub(super) leases: Cache<String, Arc<DatabaseLease>>,
    pub(super) secrets: Cache<String, Arc<Secret>>,
    /// By role and common name.
    pub(super) certificates: Cache<(String, String), Arc<IssuedCertificate>>,
    pub(super) ended: CancellationToken,
}

impl Session {
    pub(super) fn new(
        granted: Granted<SessionToken>,
        transaction_token: Option<Arc<SecretString>>,
    ) -> Self {
        Self {
            token: granted.value,
            transaction_token,
            lifetime: Lifetime::new(granted.duration, granted.renewable),
            leases: Cache::builder()
                .max_capacity(LEASES_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(LifetimeExpiry(None))
                .build(),
            secrets: Cache::builder()
                .max_capacity(LEASES_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(SECRET_TTL)
                .build(),
            certificates: Cache::builder()
                .max_capacity(LEASES_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(LifetimeExpiry(None))
                .build(),
            ended: CancellationToken::new(),
        }
    }

    /// Evicts a secret from the cache, unless it was replaced already.
    pub(super) async fn evict_secret(&self, name: &str, stale: &Arc<Secret>) {
        let current = self.secrets.get(name).await;
        if current.is_some_and(|current| Arc::ptr_eq(&current, stale)) {
            self.secrets.invalidate(name).await;
        }
    }

    /// Renews what is due: the session, then its leases. An error ends the session.
    pub(super) async fn renew(&self, source: &CredentialSource) -> Result<(), CredentialsError> {
        if self.lifetime.is_renewal_due() {
            match source.renew_session(&self.token).await {
                Ok(duration) => self.lifetime.mark_renewed(duration),
                // It is still valid for a while.
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error),
            }
        }
        for (role, lease) in &self.leases {
            if !lease.lifetime.is_renewal_due() {
                continue;
            }
            match source.renew_lease(&self.token, &lease.id).await {
                Ok(duration) => lease.lifetime.mark_renewed(duration),
                Err(error) if error.is_retryable() => {}
                Err(_) => {
                    self.leases.invalidate(role.as_str()).await;
                    lease.ended.cancel();
                }
            }
        }
        Ok(())
    }

    /// The shortest remaining lifetime of this session's leases.
    pub(super) fn soonest_expiry(&self) -> Option<Duration> {
        self.leases
            .iter()
            .map(|(_, lease)| lease.lifetime.remaining().min(self.lifetime.remaining()))
            .min()
    }
}

/// A cached value with a lifetime.
pub(super) trait HasLifetime {
    fn remaining(&self) -> Duration;
}

impl HasLifetime for Arc<Session> {
    fn remaining(&self) -> Duration {
        self.lifetime.remaining()
    }
}

impl HasLifetime for Arc<DatabaseLease> {
    fn remaining(&self) -> Duration {
        self.lifetime.remaining()
    }
}

/// A certificate cannot be renewed: when renewal would be due, another is issued.
impl HasLifetime for Arc<IssuedCertificate> {
    fn remaining(&self) -> Duration {
        self.lifetime.until_renewal()
    }
}

/// Expires an entry at the end of its lifetime, and after the idle time, if there is one.
pub(super) struct LifetimeExpiry(pub(super) Option<Duration>);

impl LifetimeExpiry {
    fn remaining(&self, value: &impl HasLifetime) -> Duration {
        let remaining = value.remaining();
        self.0.map_or(remaining, |idle| remaining.min(idle))
    }
}

impl<K, V: HasLifetime> Expiry<K, V> for LifetimeExpiry {
    fn expire_after_create(&self, _: &K, value: &V, _: Instant) -> Option<Duration> {
        Some(self.remaining(value))
    }

    fn expire_after_read(
        &self,
        _: &K,
        value: &V,
        _: Instant,
        _: Option<Duration>,
        _: Instant,
    ) -> Option<Duration> {
        Some(self.remaining(value))
    }
}
