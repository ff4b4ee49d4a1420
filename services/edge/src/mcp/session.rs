//! Sessions of the older revisions: whose they are, how many there may be, what is under way in them, and
//! where other replicas find them.
//!
//! A session at rest is one small value in a map, without a task. Its id carries a MAC over all that it is
//! bound to, so that checking it needs no look-up and holds on every replica that shares the secret.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use drawbridge_proto::mcp::v1 as pb;
use rmcp::model::LoggingLevel;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    events::{Event, EventStream},
    logging,
    revision::Revision,
};
use crate::{admission::authorizer::Reauthorizer, refusal::Refusal};

pub(super) use self::{
    id::{Owner, SessionId},
    sessions::{Sessions, Slot, Slots, sweep},
    store::{State, Store},
};

mod id;
mod sessions;
mod store;

/// How many streams one session has at once, of those that are open or can be taken up again.
const STREAMS_MAX: usize = 64;
/// How many resources one session may watch.
const SUBSCRIPTIONS_MAX: usize = 64;

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) revision: Revision,
    /// What it was opened with.
    opened: State,
    level: AtomicU8,
    /// When it was used last, in milliseconds after `began`.
    used_ms: AtomicU64,
    began: Instant,
    next_request: AtomicI64,
    activity: Mutex<Activity>,
    /// Its place among the sessions of its owner and of the replica.
    _slot: Slot,
}

/// What is under way in a session.
#[derive(Debug, Default)]
struct Activity {
    is_ended: bool,
    /// Requests of the client, by the text of their ids.
    running: HashMap<String, Running>,
    /// Requests to the client that wait for their answers.
    asked: HashMap<i64, Asked>,
    /// Streams of requests, and what whoever takes one up again must be allowed.
    streams: HashMap<u64, (Arc<EventStream>, Reauthorizer)>,
    standalone: Option<Arc<EventStream>>,
    /// Watched resources, by URI. A watch ends with its guard.
    subscriptions: HashMap<String, DropGuard>,
}

/// A request of the client in progress.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) cancel: CancellationToken,
    /// The stream of its answer.
    pub(super) stream: u64,
    /// Whoever cancels it must be allowed to make it.
    pub(super) needs: Reauthorizer,
}

#[derive(Debug)]
struct Asked {
    /// Whoever answers must be allowed to make the call that asks.
    needs: Reauthorizer,
    answer: oneshot::Sender<Result<Value, Value>>,
}

/// A question to the client, which nobody may answer any more once this is dropped.
#[derive(Debug)]
pub(super) struct Question<'a> {
    session: &'a Session,
    pub(super) id: i64,
    answer: oneshot::Receiver<Result<Value, Value>>,
}

impl Session {
    fn new(id: SessionId, state: State, slot: Slot) -> Self {
        Self {
            id,
            revision: state.revision(),
            level: AtomicU8::new(state.level),
            opened: state,
            used_ms: AtomicU64::new(0),
            began: Instant::now(),
            // Ids of two replicas should not meet in one client.
            next_request: AtomicI64::new(i64::from(rand::random::<u32>())),
            activity: Mutex::default(),
            _slot: slot,
        }
    }

    /// What another replica needs to go on with it.
    fn state(&self) -> State {
        let mut state = self.opened.clone();
        state.level = self.level.load(Ordering::Relaxed);
        state
    }

    /// What the client can be asked.
    pub(super) fn client(&self) -> pb::ClientCapabilities {
        self.opened.client()
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn level(&self) -> LoggingLevel {
        logging::level(self.level.load(Ordering::Relaxed))
    }

    pub(super) fn set_level(&self, level: LoggingLevel) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Notes that it is in use.
    pub(super) fn touch(&self) {
        let used = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(used, Ordering::Relaxed);
    }

    fn is_idle(&self, idle: Duration) -> bool {
        let used = Duration::from_millis(self.used_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(used) >= idle && !self.is_busy()
    }

    /// Whether somebody listens, or something runs.
    fn is_busy(&self) -> bool {
        let activity = self.activity();
        !activity.running.is_empty()
            || activity.standalone.as_ref().is_some_and(|stream| stream.is_read())
            || activity.streams.values().any(|(stream, _)| stream.is_read())
    }

    pub(super) fn is_ended(&self) -> bool {
        self.activity().is_ended
    }

    /// Ends all that is under way.
    pub(super) fn end(&self) {
        let mut activity = self.activity();
        activity.is_ended = true;
        let Activity { running, asked, streams, standalone, subscriptions, .. } =
            std::mem::take(&mut *activity);
        activity.is_ended = true;
        drop(activity);
        running.into_values().for_each(|running| running.cancel.cancel());
        standalone.into_iter().for_each(|stream| stream.end());
        drop((asked, streams, subscriptions));
    }

    /// Lets go of streams that nobody can take up again.
    fn tidy(&self) {
        let mut activity = self.activity();
        activity.streams.retain(|_, (stream, _)| !stream.is_over());
        if activity.streams.is_empty() {
            activity.streams.shrink_to_fit();
        }
    }

    /// Begins a request of the client.
    ///
    /// # Errors
    /// When the session has ended, or has as many streams as it may.
    pub(super) fn begin(
        &self,
        id: &Value,
        stream: &Arc<EventStream>,
        needs: Reauthorizer,
    ) -> Result<Running, Refusal> {
        let number = stream.id().ok_or(Refusal::NoSession)?;
        let running =
            Running { cancel: CancellationToken::new(), stream: number, needs: needs.clone() };
        let mut activity = self.activity();
        if activity.streams.len() >= STREAMS_MAX {
            activity.streams.retain(|_, (stream, _)| !stream.is_answered());
        }
        if activity.is_ended {
            return Err(Refusal::NoSession);
        }
        if activity.streams.len() >= STREAMS_MAX {
            return Err(Refusal::TooMany { what: "streams", max: STREAMS_MAX });
        }
        activity.running.insert(id.to_string(), running.clone());
        activity.streams.insert(number, (Arc::clone(stream), needs));
        Ok(running)
    }

    /// A request of the client has been answered.
    pub(super) fn finish(&self, id: &Value, stream: &EventStream) {
        self.touch();
        // Two of one id are the client's fault; the later one stays.
        let mut activity = self.activity();
        let id = id.to_string();
        let is_it =
            activity.running.get(&id).is_some_and(|running| Some(running.stream) == stream.id());
        if is_it {
            activity.running.remove(&id);
        }
    }

    /// A stream whose answer went out whole.
    pub(super) fn discard(&self, stream: &EventStream) {
        if let Some(id) = stream.id() {
            self.activity().streams.remove(&id);
        }
    }

    pub(super) fn running(&self, id: &Value) -> Option<Running> {
        self.activity().running.get(&id.to_string()).cloned()
    }

    /// The stream of this id, and what whoever takes it up must be allowed.
    pub(super) fn stream(&self, id: u64) -> Option<(Arc<EventStream>, Option<Reauthorizer>)> {
        let activity = self.activity();
        let standalone = activity.standalone.as_ref().filter(|stream| stream.id() == Some(id));
        let standalone = standalone.map(|stream| (Arc::clone(stream), None));
        standalone.or_else(|| {
            activity
                .streams
                .get(&id)
                .map(|(stream, needs)| (Arc::clone(stream), Some(needs.clone())))
        })
    }

    /// The standalone stream, which is made when it is first wanted.
    pub(super) fn standalone(
        &self,
        make: impl FnOnce() -> Arc<EventStream>,
    ) -> Option<Arc<EventStream>> {
        let mut activity = self.activity();
        if activity.is_ended {
            return None;
        }
        Some(Arc::clone(activity.standalone.get_or_insert_with(make)))
    }

    /// Tells a client that listens.
    pub(super) fn notify(&self, event: Event) {
        let standalone = self.activity().standalone.clone();
        if let Some(stream) = standalone {
            stream.push_now(event);
        }
    }

    /// Makes room for a watch; nothing when there is none. The watch ends when the token is cancelled.
    pub(super) fn subscribe(&self, uri: &str) -> Option<CancellationToken> {
        let mut activity = self.activity();
        let subscriptions = &mut activity.subscriptions;
        if subscriptions.len() >= SUBSCRIPTIONS_MAX && !subscriptions.contains_key(uri) {
            return None;
        }
        let ending = CancellationToken::new();
        subscriptions.insert(uri.to_owned(), ending.clone().drop_guard());
        Some(ending)
    }

    pub(super) fn unsubscribe(&self, uri: &str) {
        self.activity().subscriptions.remove(uri);
    }

    /// Makes room for an answer of the client.
    pub(super) fn question(&self, needs: Reauthorizer) -> Question<'_> {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.activity().asked.insert(id, Asked { needs, answer: sender });
        Question { session: self, id, answer }
    }

    /// What whoever answers this question must be allowed. None: nobody waits for the answer.
    pub(super) fn asked(&self, id: &Value) -> Option<Reauthorizer> {
        Some(self.activity().asked.get(&id.as_i64()?)?.needs.clone())
    }

    /// Gives the client's answer to whoever waits for it.
    pub(super) fn answer(&self, id: &Value, answer: Result<Value, Value>) {
        let asked = id.as_i64().and_then(|id| self.activity().asked.remove(&id));
        if let Some(asked) = asked {
            // Whoever asked may just have given up.
            drop(asked.answer.send(answer));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

impl Question<'_> {
    /// The client's answer. None: it did not come in time, or the session has ended.
    pub(super) async fn answer(mut self, within: Duration) -> Option<Result<Value, Value>> {
        tokio::time::timeout(within, &mut self.answer).await.ok()?.ok()
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.session.activity().asked.remove(&self.id);
    }
}
