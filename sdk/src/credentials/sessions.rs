//! The sessions of all principals and of the service itself: shared, looked after, and revoked when they leave.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use metrics::{counter, gauge};
use moka::{
    future::{Cache, FutureExt as _},
    notification::RemovalCause,
    policy::EvictionPolicy,
};
use secrecy::SecretString;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Limits,
    error::CredentialsError,
    lease::{Certificate, DatabaseLease, Secret},
    owner::LeaseOwner,
    session::{AtItsEnd, Session},
    source::{OnBehalfOf, Source},
};
use crate::{
    call::CallContext,
    identity::{Caller, Principal},
};

/// How often leases are looked at: is one due, is one idle?
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many sessions are renewed or revoked at once.
const AT_ONCE: usize = 16;
/// Between attempts to revoke a session while Vault is down.
const REVOKE_AGAIN: Duration = Duration::from_secs(2);
/// For how long whoever is revoked is remembered: longer than a transaction token lives.
const CLOSED_FOR: Duration = Duration::from_secs(120);
/// How long revoking may take when the service stops.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Sessions {
    source: Arc<Source>,
    by_holder: Cache<LeaseOwner, Arc<Session>>,
    /// Who is revoked, and since when: what was minted for them until then, in seconds since 1970, opens no session.
    revoked: Cache<Principal, i64>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Sessions {
    pub(super) fn new(source: Source, limits: Limits) -> Arc<Self> {
        let (source, closing, tasks) =
            (Arc::new(source), CancellationToken::new(), TaskTracker::new());
        let revoking = Revoking {
            source: Arc::clone(&source),
            closing: closing.clone(),
            tasks: tasks.clone(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        };
        let by_holder = Cache::builder()
            .max_capacity(limits.sessions_max)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(AtItsEnd(Some(limits.idle)))
            .async_eviction_listener(move |holder: Arc<LeaseOwner>, session, cause| {
                revoking.begin(&holder, session, cause);
                ready(()).boxed()
            })
            .build();
        let revoked =
            Cache::builder().max_capacity(limits.sessions_max).time_to_live(CLOSED_FOR).build();
        let sessions = Arc::new(Self {
            source,
            by_holder,
            revoked,
            closing: closing.clone(),
            tasks: tasks.clone(),
        });
        let looking = Arc::clone(&sessions);
        sessions.beside(async move { looking.look_after().await });
        sessions
    }

    /// Gives up all that a principal has, whoever acts for it.
    pub(super) async fn revoke(&self, principal: &Principal) {
        self.give_up(|holder| holder.principal() == Some(principal)).await;
    }

    /// Gives up all that the service has in its own name.
    pub(super) async fn revoke_own(&self) {
        self.by_holder.invalidate(&LeaseOwner::Service).await;
    }

    async fn give_up(&self, which: impl Fn(&LeaseOwner) -> bool) {
        let holders: Vec<_> = self.by_holder.iter().map(|(holder, _)| holder).collect();
        for holder in holders.iter().filter(|holder| which(holder)) {
            self.by_holder.invalidate(holder.as_ref()).await;
        }
    }

    /// The transaction tokens that all sessions were opened with.
    pub(super) fn opened_with(&self) -> Vec<(Principal, Arc<SecretString>)> {
        let of = |(holder, session): (Arc<LeaseOwner>, Arc<Session>)| {
            Some((holder.principal()?.clone(), session.opened_with.clone()?))
        };
        self.by_holder.iter().filter_map(of).collect()
    }

    /// Gives up all that a principal has. What was minted for it until then, in seconds since 1970, opens no session
    /// any more.
    pub(super) async fn close_to(&self, principal: &Principal, since: i64) {
        tracing::info!(%principal, "is revoked; what was given in this name is taken back");
        self.revoked.insert(principal.clone(), since).await;
        self.revoke(principal).await;
        self.by_holder.run_pending_tasks().await;
    }

    async fn check_open_to(&self, caller: &Caller) -> Result<(), CredentialsError> {
        match self.revoked.get(caller.principal()).await {
            Some(since) if caller.claims.iat <= since => Err(CredentialsError::Revoked),
            _ => Ok(()),
        }
    }

    /// Does something until the service stops.
    pub(super) fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            closing.run_until_cancelled(work).await;
        });
    }

    /// Gives up one lease, if it is still the one that is given out.
    pub(super) async fn give_up_lease(
        &self,
        name: OnBehalfOf<'_>,
        role: &str,
        lease: &DatabaseLease,
    ) {
        lease.ended.cancel();
        let Some(session) = self.by_holder.get(&LeaseOwner::new(name)).await else { return };
        if session.leases.get(role).await.is_some_and(|current| current.id == lease.id) {
            session.leases.invalidate(role).await;
        }
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.give_up(|_| true).await;
        self.by_holder.run_pending_tasks().await;
        self.tasks.close();
        if timeout(CLOSE_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                left = self.tasks.len(),
                "not every session could be revoked; the rest ends by itself"
            );
        }
    }

    /// The session in this name: the one there is, or a new one.
    pub(super) async fn session(
        &self,
        name: OnBehalfOf<'_>,
        context: &CallContext,
    ) -> Result<Arc<Session>, CredentialsError> {
        let holder = LeaseOwner::new(name);
        let logging_in = self.by_holder.entry_by_ref(&holder).or_try_insert_with(async {
            if self.closing.is_cancelled() {
                return Err(CredentialsError::Closed);
            }
            if let OnBehalfOf::Caller(caller) = name {
                self.check_open_to(caller).await?;
            }
            let granted = self.source.login(name, context.request_id.as_str()).await?;
            Ok(Arc::new(Session::new(granted, name.token())))
        });
        let entry = logging_in.await.map_err(|error| CredentialsError::clone(&error))?;
        if self.closing.is_cancelled() {
            self.by_holder.invalidate(&holder).await;
            return Err(CredentialsError::Closed);
        }
        count_use("session", entry.is_fresh());
        let session = entry.into_value();
        session.term.note_use();
        Ok(session)
    }

    /// A session in place of one in which something was refused, if its source does not know that one any more.
    pub(super) async fn replace(
        &self,
        session: Arc<Session>,
        name: OnBehalfOf<'_>,
        context: &CallContext,
        refused: CredentialsError,
    ) -> Result<Arc<Session>, CredentialsError> {
        if self.source.knows(&session.token).await? {
            return Err(refused);
        }
        let holder = LeaseOwner::new(name);
        let current = self.by_holder.get(&holder).await;
        if current.is_some_and(|current| Arc::ptr_eq(&current, &session)) {
            self.by_holder.invalidate(&holder).await;
        }
        self.session(name, context).await
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
        lease.term.note_use();
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
    ) -> Result<Arc<Certificate>, CredentialsError> {
        let key = (role.to_owned(), common_name.to_owned());
        let issuing = session.certificates.entry(key).or_try_insert_with(async {
            let request_id = context.request_id.as_str();
            let granted =
                self.source.certificate(&session.token, role, common_name, request_id).await?;
            Ok(Arc::new(Certificate::new(granted, session.ended.child_token())))
        });
        let entry = issuing
            .await
            .map_err(|error: Arc<CredentialsError>| CredentialsError::clone(&error))?;
        count_use("certificate", entry.is_fresh());
        Ok(entry.into_value())
    }

    async fn look_after(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let sessions: Vec<_> = self.by_holder.iter().collect();
            let soonest = sessions.iter().filter_map(|(_, session)| session.soonest_end()).min();
            gauge!("credentials_sessions")
                .set(f64::from(u32::try_from(sessions.len()).unwrap_or(u32::MAX)));
            gauge!("credentials_seconds_to_expiry_min")
                .set(soonest.unwrap_or_default().as_secs_f64());
            let renewing =
                stream::iter(sessions).for_each_concurrent(AT_ONCE, async |(holder, session)| {
                    if session.renew(&self.source).await.is_err() {
                        self.by_holder.invalidate(holder.as_ref()).await;
                    }
                });
            renewing.await;
            // What is idle or over leaves the cache, and is revoked.
            self.by_holder.run_pending_tasks().await;
        }
    }
}

/// Revokes sessions that have left the cache.
struct Revoking {
    source: Arc<Source>,
    closing: CancellationToken,
    tasks: TaskTracker,
    at_once: Arc<Semaphore>,
}

impl Revoking {
    fn begin(&self, holder: &LeaseOwner, session: Arc<Session>, cause: RemovalCause) {
        session.ended.cancel();
        tracing::debug!(%holder, ?cause, "a session with its leases is revoked");
        let (source, closing) = (Arc::clone(&self.source), self.closing.clone());
        let at_once = Arc::clone(&self.at_once);
        self.tasks.spawn(async move {
            let _permit = at_once.acquire().await;
            // While Vault is down it is tried again, until the session has ended by itself.
            while let Err(error) = source.revoke(&session.token).await {
                if !error.is_retryable() || session.term.left().is_zero() {
                    break;
                }
                if closing.run_until_cancelled(tokio::time::sleep(REVOKE_AGAIN)).await.is_none() {
                    break;
                }
            }
        });
    }
}

fn count_use(what: &'static str, fresh: bool) {
    let from = if fresh { "source" } else { "cache" };
    counter!("credentials_uses_total", "what" => what, "from" => from).increment(1);
}
