//! The sessions of a replica.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1 as auth;
use futures::{StreamExt as _, stream};
use http::HeaderValue;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{
    Owner, Session, SessionId,
    id::Binder,
    store::{Known, State, Store},
};
use crate::{mcp::events::Event, refusal::Refusal};

/// How often sessions that nobody uses are let go, and those looked up that are in use: one may have ended on
/// another replica.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// How often idle sessions are looked for at most because there are as many as there may be.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How many ends of sessions wait for Redis.
const UNSENT_MAX: usize = 10_000;

/// How many sessions are looked up at once.
const LOOKED_UP_AT_ONCE: usize = 64;

/// How many of something there may be, and how many of one principal.
#[derive(Debug)]
pub(crate) struct Slots {
    what: &'static str,
    max: usize,
    per_owner_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_owner: HashMap<Owner, usize>,
}

/// One of them, as long as this lives.
#[derive(Debug)]
pub(in crate::mcp) struct Slot {
    slots: Arc<Slots>,
    owner: Owner,
}

impl Slots {
    pub(in crate::mcp) fn new(what: &'static str, max: usize, per_owner_max: usize) -> Arc<Self> {
        Arc::new(Self { what, max, per_owner_max, taken: Mutex::default() })
    }

    /// Takes one.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(in crate::mcp) fn take(self: &Arc<Self>, owner: Owner) -> Result<Slot, Refusal> {
        let mut taken = self.taken();
        let of_owner = taken.by_owner.get(&owner).copied().unwrap_or_default();
        if of_owner >= self.per_owner_max {
            return Err(Refusal::TooMany { what: self.what, max: self.per_owner_max });
        }
        if taken.all >= self.max {
            return Err(Refusal::Full { what: self.what });
        }
        taken.all += 1;
        taken.by_owner.insert(owner, of_owner + 1);
        Ok(Slot { slots: Arc::clone(self), owner })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> f64 {
        f64::from(u32::try_from(self.taken().all).unwrap_or(u32::MAX))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all -= 1;
        if let Some(of_owner) = taken.by_owner.get_mut(&self.owner) {
            *of_owner -= 1;
            if *of_owner == 0 {
                taken.by_owner.remove(&self.owner);
            }
        }
    }
}

/// All sessions that this replica knows.
#[derive(Debug)]
pub(in crate::mcp) struct Sessions {
    binder: Binder,
    known: Mutex<HashMap<SessionId, Arc<Session>>>,
    slots: Arc<Slots>,
    store: Option<Arc<Store>>,
    /// Sessions whose end Redis does not know of yet.
    unsent: Mutex<Vec<SessionId>>,
    /// When idle sessions were last looked for because there were as many as there may be.
    looked: Mutex<Instant>,
    idle: Duration,
}

impl Sessions {
    pub(in crate::mcp) fn new(
        secret: &SecretString,
        slots: Arc<Slots>,
        idle: Duration,
        store: Option<Arc<Store>>,
    ) -> Self {
        let (known, unsent, looked) =
            (Mutex::default(), Mutex::default(), Mutex::new(Instant::now()));
        Self { binder: Binder::new(secret), known, slots, store, unsent, looked, idle }
    }

    /// Opens a session. Its client gets the id with what proves whose it is.
    pub(in crate::mcp) async fn open(
        &self,
        principal: &auth::Principal,
        resource: &str,
        state: State,
    ) -> Result<HeaderValue, Refusal> {
        let id = SessionId::random();
        let header = self.binder.header(id, principal, resource).ok_or(Refusal::NoSession)?;
        self.insert(id, principal, state.clone())?;
        if let Some(store) = &self.store {
            store.write(id, &state).await;
        }
        Ok(header)
    }

    /// The session that a request names, if it may.
    pub(in crate::mcp) async fn find(
        &self,
        header: &HeaderValue,
        principal: &auth::Principal,
        resource: &str,
    ) -> Result<Arc<Session>, Refusal> {
        let id = self.binder.id(header, principal, resource).ok_or(Refusal::NoSession)?;
        let here = self.known().get(&id).cloned();
        let here = here.filter(|session| !session.is_ended() && !session.is_idle(self.idle));
        let session = match (&self.store, here) {
            (None, here) => here.ok_or(Refusal::NoSession)?,
            (Some(store), here) => match (store.read(id).await, here) {
                (Known::Ended, _) => {
                    self.remove(id);
                    return Err(Refusal::NoSession);
                }
                (Known::State(_) | Known::Away, Some(here)) => here,
                (Known::Nothing, Some(here)) => {
                    store.write(id, &here.state()).await;
                    here
                }
                (Known::State(state), None) => self.insert(id, principal, state)?,
                (Known::Nothing, None) => return Err(Refusal::NoSession),
                (Known::Away, None) => return Err(Refusal::SessionsAway),
            },
        };
        session.touch();
        Ok(session)
    }

    /// The session of this id, where this replica has it.
    pub(in crate::mcp) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.known().get(&id).filter(|session| !session.is_ended()).cloned()
    }

    /// Whether somebody listens, or something runs.
    pub(in crate::mcp) fn is_busy(&self) -> bool {
        self.known().values().any(|session| session.is_busy())
    }

    /// Ends a session, on all replicas.
    pub(in crate::mcp) async fn end(&self, session: &Session) {
        self.remove(session.id);
        session.end();
        if let Some(store) = &self.store
            && !store.end(session.id).await
        {
            let mut unsent = self.unsent();
            if unsent.len() < UNSENT_MAX {
                unsent.push(session.id);
            }
        }
    }

    /// Tells all clients that listen in a session.
    pub(in crate::mcp) fn notify(&self, event: &Event) {
        let sessions: Vec<_> = self.known().values().cloned().collect();
        sessions.iter().for_each(|session| session.notify(event.clone()));
    }

    fn insert(
        &self,
        id: SessionId,
        principal: &auth::Principal,
        state: State,
    ) -> Result<Arc<Session>, Refusal> {
        let owner = Owner::of(principal);
        let slot = self.slots.take(owner).or_else(|refusal| {
            if !self.may_look() {
                return Err(refusal);
            }
            self.drop_idle();
            self.slots.take(owner)
        })?;
        let session = Arc::new(Session::new(id, state, slot));
        // Of two requests that restore one session at once, the first wins.
        Ok(Arc::clone(self.known().entry(id).or_insert(session)))
    }

    fn remove(&self, id: SessionId) {
        let gone = self.known().remove(&id);
        if let Some(session) = gone {
            session.end();
        }
    }

    /// Whether it is time to look at all sessions again, of whoever has too many.
    fn may_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = looked.elapsed() >= LOOK_INTERVAL.min(self.idle);
        if is_time {
            *looked = Instant::now();
        }
        is_time
    }

    fn drop_idle(&self) {
        let mut idle = Vec::new();
        self.known().retain(|_, session| {
            session.tidy();
            let stays = !session.is_idle(self.idle);
            if !stays {
                idle.push(Arc::clone(session));
            }
            stays
        });
        idle.iter().for_each(|session| session.end());
    }

    async fn sweep(&self) {
        self.drop_idle();
        metrics::gauge!("mcp_server_sessions").set(self.slots.count());
        let Some(store) = &self.store else { return };
        let unsent = std::mem::take(&mut *self.unsent());
        for id in unsent {
            if !store.end(id).await {
                self.unsent().push(id);
            }
        }
        let busy: Vec<_> =
            self.known().values().filter(|session| session.is_busy()).map(|s| s.id).collect();
        let looking = busy.into_iter().map(|id| async move { (id, store.read(id).await) });
        let mut found = stream::iter(looking).buffer_unordered(LOOKED_UP_AT_ONCE);
        while let Some((id, known)) = found.next().await {
            if matches!(known, Known::Ended) {
                self.remove(id);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsent(&self) -> MutexGuard<'_, Vec<SessionId>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sweeps now and then, until the edge stops.
pub(in crate::mcp) async fn sweep(sessions: Arc<Sessions>, stopping: CancellationToken) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    while stopping.run_until_cancelled(interval.tick()).await.is_some() {
        sessions.sweep().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::revision::Revision;

    fn state() -> State {
        State::opened(Revision::November2025, &Default::default())
    }

    fn principal(subject: &str) -> auth::Principal {
        auth::Principal { subject: subject.into(), ..Default::default() }
    }

    #[tokio::test]
    async fn sessions_are_bounded_per_principal_and_in_all_and_those_that_have_ended_make_room() {
        let slots = Slots::new("sessions", 3, 2);
        let sessions = Sessions::new(&"one".into(), slots, Duration::from_secs(60), None);
        let (alice, bob) = (principal("alice"), principal("bob"));
        let first = sessions.open(&alice, "", state()).await.unwrap();
        sessions.open(&alice, "", state()).await.unwrap();
        let refused = sessions.open(&alice, "", state()).await.unwrap_err();
        assert!(matches!(refused, Refusal::TooMany { max: 2, .. }));
        sessions.open(&bob, "", state()).await.unwrap();
        let refused = sessions.open(&bob, "", state()).await.unwrap_err();
        assert!(matches!(refused, Refusal::Full { .. }));
        let session = sessions.find(&first, &alice, "").await.unwrap();
        sessions.end(&session).await;
        drop(session);
        assert!(matches!(sessions.find(&first, &alice, "").await, Err(Refusal::NoSession)));
        sessions.open(&bob, "", state()).await.unwrap();
    }

    #[tokio::test]
    async fn sessions_that_are_idle_make_room() {
        let slots = Slots::new("sessions", 1, 1);
        let sessions = Sessions::new(&"one".into(), slots, Duration::ZERO, None);
        let alice = principal("alice");
        let first = sessions.open(&alice, "", state()).await.unwrap();
        sessions.open(&alice, "", state()).await.unwrap();
        assert!(matches!(sessions.find(&first, &alice, "").await, Err(Refusal::NoSession)));
    }

    /// Pages of this process in memory, in bytes.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    /// 118 KiB with a task of its own for each.
    #[tokio::test]
    async fn a_session_at_rest_costs_less_than_20_kib() {
        const COUNT: usize = 50_000;
        let slots = Slots::new("sessions", COUNT, COUNT);
        let sessions = Sessions::new(&"one".into(), slots, Duration::from_secs(60), None);
        let before = resident();
        for number in 0..COUNT {
            sessions.open(&principal(&number.to_string()), "", state()).await.unwrap();
        }
        let each = resident().saturating_sub(before) / COUNT;
        println!("a session at rest: {each} bytes");
        assert!(each < 20 * 1024, "{each} bytes");
        assert_eq!(sessions.known().len(), COUNT);
    }
}
