//! The sessions of one replica.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::metric::Gauge;
use futures::{StreamExt as _, stream};
use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::{
    Session, SessionId, SlotOwner,
    id::SessionIdSigner,
    store::{SessionState, SessionStore, StoredSession},
};
use crate::{mcp::events::StreamEvent, refusal::Refusal};

/// How often idle sessions are removed, and busy ones looked up: they may have ended on another
/// replica.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// The shortest interval between two scans for idle sessions that a full limit triggers.
const SCAN_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The most ended sessions that wait to be written to Redis.
const UNSENT_ENDS_MAX: usize = 10_000;

/// How many sessions are looked up at once.
const LOOKUPS_AT_ONCE: usize = 64;

/// Limits how many of something exist in all, and per principal.
#[derive(Debug)]
pub(crate) struct Slots {
    what: &'static str,
    max: usize,
    per_owner_max: usize,
    taken: Mutex<SlotCounts>,
    /// How many are taken.
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct SlotCounts {
    all: usize,
    by_owner: HashMap<SlotOwner, usize>,
}

/// One slot, held until this is dropped.
#[derive(Debug)]
pub(in crate::mcp) struct Slot {
    slots: Arc<Slots>,
    owner: SlotOwner,
}

impl Slots {
    pub(in crate::mcp) fn new(
        what: &'static str,
        max: usize,
        per_owner_max: usize,
        gauge: Gauge,
    ) -> Arc<Self> {
        gauge.set(0);
        Arc::new(Self { what, max, per_owner_max, taken: Mutex::default(), gauge })
    }

    /// Acquires a slot.
    ///
    /// # Errors
    /// When the principal or the replica has reached its limit.
    pub(in crate::mcp) fn acquire(self: &Arc<Self>, owner: SlotOwner) -> Result<Slot, Refusal> {
        let mut taken = self.taken();
        let owned = taken.by_owner.get(&owner).copied().unwrap_or_default();
        if owned >= self.per_owner_max {
            return Err(Refusal::TooMany { what: self.what, max: self.per_owner_max });
        }
        if taken.all >= self.max {
            return Err(Refusal::Full { what: self.what });
        }
        taken.all += 1;
        taken.by_owner.insert(owner, owned + 1);
        self.gauge.increment(1);
        Ok(Slot { slots: Arc::clone(self), owner })
    }

    fn taken(&self) -> MutexGuard<'_, SlotCounts> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all -= 1;
        self.slots.gauge.decrement(1);
        if let Some(owned) = taken.by_owner.get_mut(&self.owner) {
            *owned -= 1;
            if *owned == 0 {
                taken.by_owner.remove(&self.owner);
            }
        }
    }
}

/// The sessions that this replica knows.
#[derive(Debug)]
pub(in crate::mcp) struct SessionRegistry {
    signer: SessionIdSigner,
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    slots: Arc<Slots>,
    store: Option<Arc<SessionStore>>,
    /// Ended sessions that are not yet written to Redis.
    unsent_ends: Mutex<Vec<SessionId>>,
    /// When a full limit last triggered a scan for idle sessions.
    last_scan: Mutex<Instant>,
    idle: Duration,
}

impl SessionRegistry {
    pub(in crate::mcp) fn new(
        id_key: hmac::Key,
        slots: Arc<Slots>,
        idle: Duration,
        store: Option<Arc<SessionStore>>,
    ) -> Self {
        let (sessions, unsent_ends, last_scan) =
            (Mutex::default(), Mutex::default(), Mutex::new(Instant::now()));
        Self {
            signer: SessionIdSigner::new(id_key),
            sessions,
            slots,
            store,
            unsent_ends,
            last_scan,
            idle,
        }
    }

    /// Opens a session, and returns its signed id.
    pub(in crate::mcp) async fn open(
        &self,
        principal: &auth::Principal,
        resource: &str,
        state: SessionState,
    ) -> Result<HeaderValue, Refusal> {
        let id = SessionId::random();
        let header = self.signer.sign(id, principal, resource).ok_or(Refusal::NoSession)?;
        self.insert(id, principal, state.clone())?;
        if let Some(store) = &self.store {
            store.write(id, &state).await;
        }
        Ok(header)
    }

    /// Finds the session that a request names and that belongs to its principal.
    pub(in crate::mcp) async fn find(
        &self,
        header: &HeaderValue,
        principal: &auth::Principal,
        resource: &str,
    ) -> Result<Arc<Session>, Refusal> {
        let id = self.signer.verify(header, principal, resource).ok_or(Refusal::NoSession)?;
        let local = self.sessions().get(&id).cloned();
        let local = local.filter(|session| !session.is_ended() && !session.is_idle(self.idle));
        let session = match (&self.store, local) {
            (None, local) => local.ok_or(Refusal::NoSession)?,
            (Some(store), local) => match (store.read(id).await, local) {
                (StoredSession::Ended, _) => {
                    self.remove(id);
                    return Err(Refusal::NoSession);
                }
                (StoredSession::State(_) | StoredSession::Unavailable, Some(local)) => local,
                (StoredSession::Missing, Some(local)) => {
                    store.write(id, &local.state()).await;
                    local
                }
                (StoredSession::State(state), None) => self.insert(id, principal, state)?,
                (StoredSession::Missing, None) => return Err(Refusal::NoSession),
                (StoredSession::Unavailable, None) => return Err(Refusal::SessionsUnavailable),
            },
        };
        session.touch();
        Ok(session)
    }

    /// The session of this id, if this replica has it.
    pub(in crate::mcp) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions().get(&id).filter(|session| !session.is_ended()).cloned()
    }

    /// Ends a session on all replicas.
    pub(in crate::mcp) async fn end(&self, session: &Session) {
        self.remove(session.id);
        session.end();
        if let Some(store) = &self.store
            && !store.end(session.id).await
        {
            let mut unsent_ends = self.unsent_ends();
            if unsent_ends.len() < UNSENT_ENDS_MAX {
                unsent_ends.push(session.id);
            }
        }
    }

    /// Notifies all sessions that have a subscriber.
    pub(in crate::mcp) fn notify(&self, event: &StreamEvent) {
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        sessions.iter().for_each(|session| session.notify(event.clone()));
    }

    fn insert(
        &self,
        id: SessionId,
        principal: &auth::Principal,
        state: SessionState,
    ) -> Result<Arc<Session>, Refusal> {
        let owner = SlotOwner::of(principal);
        let slot = self.slots.acquire(owner).or_else(|refusal| {
            if !self.may_scan() {
                return Err(refusal);
            }
            self.drop_idle();
            self.slots.acquire(owner)
        })?;
        let session = Arc::new(Session::new(id, state, slot));
        // If two requests restore one session at once, the first wins.
        Ok(Arc::clone(self.sessions().entry(id).or_insert(session)))
    }

    fn remove(&self, id: SessionId) {
        let removed = self.sessions().remove(&id);
        if let Some(session) = removed {
            session.end();
        }
    }

    /// Whether the next scan for idle sessions is due.
    fn may_scan(&self) -> bool {
        let mut last_scan = self.last_scan.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last_scan.elapsed() >= SCAN_INTERVAL_MIN.min(self.idle);
        if is_due {
            *last_scan = Instant::now();
        }
        is_due
    }

    fn drop_idle(&self) {
        let mut idle = Vec::new();
        self.sessions().retain(|_, session| {
            session.drop_expired_streams();
            let is_active = !session.is_idle(self.idle);
            if !is_active {
                idle.push(Arc::clone(session));
            }
            is_active
        });
        idle.iter().for_each(|session| session.end());
    }

    async fn sweep(&self) {
        self.drop_idle();
        let Some(store) = &self.store else { return };
        let unsent_ends = std::mem::take(&mut *self.unsent_ends());
        for id in unsent_ends {
            if !store.end(id).await {
                self.unsent_ends().push(id);
            }
        }
        let busy: Vec<_> = self
            .sessions()
            .values()
            .filter(|session| session.is_busy())
            .map(|session| session.id)
            .collect();
        let lookups = busy.into_iter().map(|id| async move { (id, store.read(id).await) });
        let mut found = stream::iter(lookups).buffer_unordered(LOOKUPS_AT_ONCE);
        while let Some((id, sessions)) = found.next().await {
            if matches!(sessions, StoredSession::Ended) {
                self.remove(id);
            }
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsent_ends(&self) -> MutexGuard<'_, Vec<SessionId>> {
        self.unsent_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sweeps periodically until the edge stops.
pub(in crate::mcp) async fn sweep(sessions: Arc<SessionRegistry>, stopping: CancellationToken) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    while stopping.run_until_cancelled(interval.tick()).await.is_some() {
        sessions.sweep().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::EdgeKeys, mcp::revision::ProtocolRevision};

    fn id_key() -> hmac::Key {
        EdgeKeys::for_tests("one").mcp.sessions.ids
    }

    fn state() -> SessionState {
        SessionState::new(ProtocolRevision::November2025, &Default::default())
    }

    fn principal(subject: &str) -> auth::Principal {
        auth::Principal { subject: subject.into(), ..Default::default() }
    }

    #[tokio::test]
    async fn sessions_are_limited_per_principal_and_in_all_and_ended_ones_free_their_slots() {
        let slots = Slots::new("sessions", 3, 2, Gauge::noop());
        let sessions = SessionRegistry::new(id_key(), slots, Duration::from_secs(60), None);
        let (alice, bob) = (principal("alice"), principal("bob"));
        let first = sessions.open(&alice, "", state()).await.unwrap();
        sessions.open(&alice, "", state()).await.unwrap();
        let refusal = sessions.open(&alice, "", state()).await.unwrap_err();
        assert!(matches!(refusal, Refusal::TooMany { max: 2, .. }));
        sessions.open(&bob, "", state()).await.unwrap();
        let refusal = sessions.open(&bob, "", state()).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Full { .. }));
        let session = sessions.find(&first, &alice, "").await.unwrap();
        sessions.end(&session).await;
        drop(session);
        assert!(matches!(sessions.find(&first, &alice, "").await, Err(Refusal::NoSession)));
        sessions.open(&bob, "", state()).await.unwrap();
    }

    #[tokio::test]
    async fn idle_sessions_free_their_slots() {
        let slots = Slots::new("sessions", 1, 1, Gauge::noop());
        let sessions = SessionRegistry::new(id_key(), slots, Duration::ZERO, None);
        let alice = principal("alice");
        let first = sessions.open(&alice, "", state()).await.unwrap();
        sessions.open(&alice, "", state()).await.unwrap();
        assert!(matches!(sessions.find(&first, &alice, "").await, Err(Refusal::NoSession)));
    }

    /// The resident memory of this process, in bytes.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    /// With one task per session it was 118 KiB.
    #[tokio::test]
    async fn an_idle_session_costs_less_than_20_kib() {
        const COUNT: usize = 50_000;
        let slots = Slots::new("sessions", COUNT, COUNT, Gauge::noop());
        let sessions = SessionRegistry::new(id_key(), slots, Duration::from_secs(60), None);
        let before = resident();
        for number in 0..COUNT {
            sessions.open(&principal(&number.to_string()), "", state()).await.unwrap();
        }
        let each = resident().saturating_sub(before) / COUNT;
        println!("an idle session: {each} bytes");
        assert!(each < 20 * 1024, "{each} bytes");
        assert_eq!(sessions.sessions().len(), COUNT);
    }
}
