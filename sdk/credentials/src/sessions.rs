//! The sessions of all principals and of the service itself: shared, renewed, and revoked when they
//! are evicted.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use moka::{
    future::{Cache, FutureExt as _},
    notification::RemovalCause,
    policy::EvictionPolicy,
};
use secrecy::SecretString;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CredentialLimits,
    error::CredentialsError,
    lease::{DatabaseLease, IssuedCertificate, Secret},
    lease_owner::LeaseOwner,
    on_behalf_of::OnBehalfOf,
    session::{LifetimeExpiry, Session},
    source::CredentialSource,
};
use crate::metrics::{EXPIRY_MIN, LEASES, SESSIONS, USES};
use drawbridge_runtime::RELEASE_TIMEOUT;
use drawbridge_transport::{
    CallContext,
    transaction_token::{Principal, VerifiedCaller},
};

/// How often sessions are checked for due renewals and for idleness.
pub(super) const MAINTENANCE_INTERVAL: Duration = Duration::from_millis(500);
/// How many sessions are renewed, or revoked, concurrently.
const CONCURRENCY_MAX: usize = 16;
/// The delay between attempts to revoke a session while Vault is unavailable.
const REVOKE_RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long revoked principals are remembered: longer than a transaction token lives.
const REVOKED_RETENTION: Duration = Duration::from_secs(120);
/// How long revoking may take when the service stops.
const CLOSE_DEADLINE: Duration = RELEASE_TIMEOUT.saturating_sub(Duration::from_millis(500));

#[derive(Debug)]
pub(super) struct Sessions {
    source: Arc<CredentialSource>,
    by_owner: Cache<LeaseOwner, Arc<Session>>,
    /// Revoked principals: tokens issued until this time, in seconds since 1970, open no session.
    revoked: Cache<Principal, i64>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Sessions {
    pub(super) fn new(source: CredentialSource, limits: CredentialLimits) -> Arc<Self> {
        let (source, closing, tasks) =
            (Arc::new(source), CancellationToken::new(), TaskTracker::new());
        let revoker = Revoker {
            source: Arc::clone(&source),
            closing: closing.clone(),
            tasks: tasks.clone(),
            permits: Arc::new(Semaphore::new(CONCURRENCY_MAX)),
        };
        let by_owner = Cache::builder()
            .max_capacity(limits.sessions_max)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(LifetimeExpiry(Some(limits.idle)))
            .async_eviction_listener(move |owner: Arc<LeaseOwner>, session, cause| {
                revoker.spawn_revocation(&owner, session, cause);
                ready(()).boxed()
            })
            .build();
        let revoked = Cache::builder()
            .max_capacity(limits.sessions_max)
            .time_to_live(REVOKED_RETENTION)
            .build();
        let sessions = Arc::new(Self {
            source,
            by_owner,
            revoked,
            closing: closing.clone(),
            tasks: tasks.clone(),
        });
        let this = Arc::clone(&sessions);
        sessions.spawn(async move { this.maintain().await });
        sessions
    }

    pub(super) fn source(&self) -> &CredentialSource {
        &self.source
    }

    /// Revokes all sessions of a principal, including those of its actors.
    pub(super) async fn revoke(&self, principal: &Principal) {
        self.invalidate_where(|owner| owner.principal() == Some(principal)).await;
    }

    /// Revokes the sessions of the service itself.
    pub(super) async fn revoke_service(&self) {
        self.by_owner.invalidate(&LeaseOwner::Service).await;
    }

    async fn invalidate_where(&self, matches: impl Fn(&LeaseOwner) -> bool) {
        let owners: Vec<_> = self.by_owner.iter().map(|(owner, _)| owner).collect();
        for owner in owners.iter().filter(|owner| matches(owner)) {
            self.by_owner.invalidate(owner.as_ref()).await;
        }
    }

    /// The transaction tokens that opened the sessions.
    pub(super) fn transaction_tokens(&self) -> Vec<(Principal, Arc<SecretString>)> {
        let token_of = |(owner, session): (Arc<LeaseOwner>, Arc<Session>)| {
            Some((owner.principal()?.clone(), session.transaction_token.clone()?))
        };
        self.by_owner.iter().filter_map(token_of).collect()
    }

    /// Revokes all sessions of a principal. Tokens that were issued until `since`, in seconds since
    /// 1970, open no session any more.
    pub(super) async fn mark_revoked(&self, principal: &Principal, since: i64) {
        tracing::info!(%principal, "the principal is revoked; its sessions are revoked too");
        self.revoked.insert(principal.clone(), since).await;
        self.revoke(principal).await;
        self.by_owner.run_pending_tasks().await;
    }

    async fn check_not_revoked(&self, caller: &VerifiedCaller) -> Result<(), CredentialsError> {
        match self.revoked.get(caller.principal()).await {
            Some(since) if caller.claims.iat <= since => Err(CredentialsError::Revoked),
            _ => Ok(()),
        }
    }

    /// Spawns a task that runs until the service stops.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            closing.run_until_cancelled(work).await;
        });
    }

    /// Discards one lease, if it is still the current one.
    pub(super) async fn discard_lease(
        &self,
        on_behalf_of: OnBehalfOf<'_>,
        role: &str,
        lease: &DatabaseLease,
    ) {
        lease.ended.cancel();
        let Some(session) = self.by_owner.get(&LeaseOwner::new(on_behalf_of)).await else { return };
        if session.leases.get(role).await.is_some_and(|current| current.id == lease.id) {
            session.leases.invalidate(role).await;
        }
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.invalidate_where(|_| true).await;
        self.by_owner.run_pending_tasks().await;
        self.tasks.close();
        if timeout(CLOSE_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                left = self.tasks.len(),
                "not every session could be revoked; the others will expire"
            );
        }
    }

    /// The session for `on_behalf_of`: the existing one, or a new one.
    pub(super) async fn session(
        &self,
        on_behalf_of: OnBehalfOf<'_>,
        context: &CallContext,
    ) -> Result<Arc<Session>, CredentialsError> {
        let owner = LeaseOwner::new(on_behalf_of);
        let logging_in = self.by_owner.entry_by_ref(&owner).or_try_insert_with(async {
            if self.closing.is_cancelled() {
                return Err(CredentialsError::Closed);
            }
            if let OnBehalfOf::Caller(caller) = on_behalf_of {
                self.check_not_revoked(caller).await?;
            }
            let granted = self.source.login(on_behalf_of, context.request_id.as_str()).await?;
            Ok(Arc::new(Session::new(granted, on_behalf_of.token())))
        });
        let entry = logging_in.await.map_err(|error| CredentialsError::clone(&error))?;
        if self.closing.is_cancelled() {
            self.by_owner.invalidate(&owner).await;
            return Err(CredentialsError::Closed);
        }
        count_use("session", entry.is_fresh());
        let session = entry.into_value();
        session.lifetime.mark_used();
        Ok(session)
    }

    /// Replaces a session in which a request was denied, if its source no longer knows it.
    pub(super) async fn replace(
        &self,
        session: Arc<Session>,
        on_behalf_of: OnBehalfOf<'_>,
        context: &CallContext,
        refused: CredentialsError,
    ) -> Result<Arc<Session>, CredentialsError> {
        if self.source.is_known(&session.token).await? {
            return Err(refused);
        }
        let owner = LeaseOwner::new(on_behalf_of);
        let current = self.by_owner.get(&owner).await;
        if current.is_some_and(|current| Arc::ptr_eq(&current, &session)) {
            self.by_owner.invalidate(&owner).await;
        }
        self.session(on_behalf_of, context).await
    }

    pub(super) async fn lease(
        &self,
        session: &Session,
        context: &CallContext,
        role: &str,
    ) -> Result<Arc<DatabaseLease>, CredentialsError> {
        let taking = session.leases.entry_by_ref(role).or_try_insert_with(async {
            let granted =
                self.source.database(&session.token, role, context.request_id.as_str()).await?;
            Ok(Arc::new(DatabaseLease::new(granted, session.ended.child_token())))
        });
        let entry =
            taking.await.map_err(|error: Arc<CredentialsError>| CredentialsError::clone(&error))?;
        count_use("lease", entry.is_fresh());
        let lease = entry.into_value();
        lease.lifetime.mark_used();
        Ok(lease)
    }

    pub(super) async fn secret(
        &self,
        session: &Session,
        context: &CallContext,
        tenant: &str,
        name: &str,
    ) -> Result<Arc<Secret>, CredentialsError> {
        let reading = session.secrets.entry_by_ref(name).or_try_insert_with(async {
            let request_id = context.request_id.as_str();
            self.source.secret(&session.token, tenant, name, request_id).await.map(Arc::new)
        });
        let entry = reading
            .await
            .map_err(|error: Arc<CredentialsError>| CredentialsError::clone(&error))?;
        count_use("secret", entry.is_fresh());
        Ok(entry.into_value())
    }

    pub(super) async fn certificate(
        &self,
        session: &Session,
        context: &CallContext,
        role: &str,
        common_name: &str,
    ) -> Result<Arc<IssuedCertificate>, CredentialsError> {
        let key = (role.to_owned(), common_name.to_owned());
        let issuing = session.certificates.entry(key).or_try_insert_with(async {
            let request_id = context.request_id.as_str();
            let granted =
                self.source.certificate(&session.token, role, common_name, request_id).await?;
            Ok(Arc::new(IssuedCertificate::new(granted, session.ended.child_token())))
        });
        let entry = issuing
            .await
            .map_err(|error: Arc<CredentialsError>| CredentialsError::clone(&error))?;
        count_use("certificate", entry.is_fresh());
        Ok(entry.into_value())
    }

    async fn maintain(&self) {
        loop {
            tokio::time::sleep(MAINTENANCE_INTERVAL).await;
            let sessions: Vec<_> = self.by_owner.iter().collect();
            let soonest = sessions.iter().filter_map(|(_, session)| session.soonest_expiry()).min();
            SESSIONS.get().set(f64::from(u32::try_from(sessions.len()).unwrap_or(u32::MAX)));
            let leases: u64 = sessions.iter().map(|(_, it)| it.leases.entry_count()).sum();
            LEASES.get().set(f64::from(u32::try_from(leases).unwrap_or(u32::MAX)));
            EXPIRY_MIN.get().set(soonest.unwrap_or_default().as_secs_f64());
            let renewing = stream::iter(sessions).for_each_concurrent(
                CONCURRENCY_MAX,
                async |(owner, session)| {
                    if session.renew(&self.source).await.is_err() {
                        self.by_owner.invalidate(owner.as_ref()).await;
                    }
                },
            );
            renewing.await;
            // Idle and expired sessions leave the cache, and are revoked.
            self.by_owner.run_pending_tasks().await;
        }
    }
}

/// Revokes sessions that have left the cache.
struct Revoker {
    source: Arc<CredentialSource>,
    closing: CancellationToken,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
}

impl Revoker {
    fn spawn_revocation(&self, owner: &LeaseOwner, session: Arc<Session>, cause: RemovalCause) {
        session.ended.cancel();
        tracing::debug!(holder = %owner, ?cause, "revoking a session with its leases");
        let (source, closing) = (Arc::clone(&self.source), self.closing.clone());
        let permits = Arc::clone(&self.permits);
        self.tasks.spawn(async move {
            let _permit = permits.acquire().await;
            // Retried while Vault is unavailable, until the session has expired.
            while let Err(error) = source.revoke(&session.token).await {
                if !error.is_retryable() || session.lifetime.remaining().is_zero() {
                    break;
                }
                if closing
                    .run_until_cancelled(tokio::time::sleep(REVOKE_RETRY_INTERVAL))
                    .await
                    .is_none()
                {
                    break;
                }
            }
        });
    }
}

fn count_use(what: &'static str, fresh: bool) {
    let from = if fresh { "source" } else { "cache" };
    USES.with([what.into(), from.into()]).increment(1);
}
