//! Sessions of the older revisions: their principals, limits and activity, and their copies in
//! Redis for other replicas.
//!
//! An idle session is one small value in a map, without a task. Its id carries a MAC over all that
//! it is bound to, so that every replica that shares the secret verifies it without a look-up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use drawbridge_proto::mcp::v1 as pb;
use drawbridge_runtime::trace::{self, SpanContext};
use rmcp::model::LoggingLevel;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Span;

use super::{
    events::{EventStream, StreamEvent},
    logging,
    revision::ProtocolRevision,
};
use crate::{authorizer::Reauthorizer, refusal::Refusal};

pub(super) use self::{
    id::{SessionId, SlotOwner},
    sessions::{SessionRegistry, Slot, Slots, sweep},
    store::{SessionState, SessionStore},
};

mod id;
mod sessions;
mod store;

/// The most streams of one session that are open or resumable at once.
const STREAMS_MAX: usize = 64;
/// The most resources that one session may watch.
const SUBSCRIPTIONS_MAX: usize = 64;

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) revision: ProtocolRevision,
    /// The state that it was opened with.
    state: SessionState,
    level: AtomicU8,
    /// When it was last used, in milliseconds after `started`.
    used_ms: AtomicU64,
    started: Instant,
    next_request: AtomicI64,
    activity: Mutex<SessionActivity>,
    /// Counts it against the limits of its principal and of the replica.
    _slot: Slot,
}

/// Requests, streams and subscriptions of a session.
#[derive(Debug, Default)]
struct SessionActivity {
    is_ended: bool,
    /// Requests of the client, by the JSON of their ids.
    running: HashMap<String, RunningRequest>,
    /// Requests to the client that wait for a response.
    pending: HashMap<i64, PendingRequest>,
    /// Streams of requests, and the permission that resuming each one needs.
    streams: HashMap<u64, (Arc<EventStream>, Reauthorizer)>,
    standalone: Option<Arc<EventStream>>,
    /// Watched resources, by URI. A watch ends with its guard.
    subscriptions: HashMap<String, DropGuard>,
}

/// A request of the client in progress.
#[derive(Clone, Debug)]
pub(super) struct RunningRequest {
    pub(super) cancel: CancellationToken,
    /// The stream of its response.
    pub(super) stream: u64,
    /// The permission to make the request, which cancelling it needs too.
    pub(super) authorization: Reauthorizer,
}

/// A request to the client that waits for a response.
#[derive(Debug)]
struct PendingRequest {
    /// The permission to make the call that sent the request, which responding needs too.
    authorization: Reauthorizer,
    /// The span of the request to the client.
    asked_in: Option<SpanContext>,
    sender: oneshot::Sender<Result<Value, Value>>,
}

/// A request to the client. Once this is dropped, a response has no effect.
#[derive(Debug)]
pub(super) struct ClientRequest<'a> {
    session: &'a Session,
    pub(super) id: i64,
    receiver: oneshot::Receiver<Result<Value, Value>>,
}

impl Session {
    fn new(id: SessionId, state: SessionState, slot: Slot) -> Self {
        Self {
            id,
            revision: state.revision(),
            level: AtomicU8::new(state.level),
            state,
            used_ms: AtomicU64::new(0),
            started: Instant::now(),
            // Random, so that ids of two replicas are unlikely to collide in one client.
            next_request: AtomicI64::new(i64::from(rand::random::<u32>())),
            activity: Mutex::default(),
            _slot: slot,
        }
    }

    /// The state from which another replica restores the session.
    fn state(&self) -> SessionState {
        let mut state = self.state.clone();
        state.level = self.level.load(Ordering::Relaxed);
        state
    }

    /// The input that the client supports.
    pub(super) fn client(&self) -> pb::ClientCapabilities {
        self.state.client()
    }

    fn activity(&self) -> MutexGuard<'_, SessionActivity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn level(&self) -> LoggingLevel {
        logging::level_from_number(self.level.load(Ordering::Relaxed))
    }

    pub(super) fn set_level(&self, level: LoggingLevel) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Marks the session as used now.
    pub(super) fn touch(&self) {
        let used = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(used, Ordering::Relaxed);
    }

    fn is_idle(&self, idle: Duration) -> bool {
        let used = Duration::from_millis(self.used_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(used) >= idle && !self.is_busy()
    }

    /// Whether the session has a subscriber or a running request.
    fn is_busy(&self) -> bool {
        let activity = self.activity();
        !activity.running.is_empty()
            || activity.standalone.as_ref().is_some_and(|stream| stream.has_reader())
            || activity.streams.values().any(|(stream, _)| stream.has_reader())
    }

    pub(super) fn is_ended(&self) -> bool {
        self.activity().is_ended
    }

    /// Ends the session and all of its activity.
    pub(super) fn end(&self) {
        let mut activity = self.activity();
        activity.is_ended = true;
        let SessionActivity { running, pending, streams, standalone, subscriptions, .. } =
            std::mem::take(&mut *activity);
        activity.is_ended = true;
        drop(activity);
        running.into_values().for_each(|running| running.cancel.cancel());
        standalone.into_iter().for_each(|stream| stream.end());
        drop((pending, streams, subscriptions));
    }

    /// Drops streams that no client can resume any more.
    fn drop_expired_streams(&self) {
        let mut activity = self.activity();
        activity.streams.retain(|_, (stream, _)| !stream.is_expired());
        if activity.streams.is_empty() {
            activity.streams.shrink_to_fit();
        }
    }

    /// Starts a request of the client.
    ///
    /// # Errors
    /// When the session has ended, or has reached its limit of streams.
    pub(super) fn start_request(
        &self,
        id: &Value,
        stream: &Arc<EventStream>,
        authorization: Reauthorizer,
    ) -> Result<RunningRequest, Refusal> {
        let number = stream.id().ok_or(Refusal::NoSession)?;
        let running = RunningRequest {
            cancel: CancellationToken::new(),
            stream: number,
            authorization: authorization.clone(),
        };
        let mut activity = self.activity();
        if activity.streams.len() >= STREAMS_MAX {
            activity.streams.retain(|_, (stream, _)| !stream.has_response());
        }
        if activity.is_ended {
            return Err(Refusal::NoSession);
        }
        if activity.streams.len() >= STREAMS_MAX {
            return Err(Refusal::TooMany { what: "streams", max: STREAMS_MAX });
        }
        activity.running.insert(id.to_string(), running.clone());
        activity.streams.insert(number, (Arc::clone(stream), authorization));
        Ok(running)
    }

    /// Removes a request that has its response.
    pub(super) fn finish_request(&self, id: &Value, stream: &EventStream) {
        self.touch();
        // If a client reuses an id in progress, the later request stays.
        let mut activity = self.activity();
        let id = id.to_string();
        let is_same =
            activity.running.get(&id).is_some_and(|running| Some(running.stream) == stream.id());
        if is_same {
            activity.running.remove(&id);
        }
    }

    /// Removes a stream whose response was one message.
    pub(super) fn discard_stream(&self, stream: &EventStream) {
        if let Some(id) = stream.id() {
            self.activity().streams.remove(&id);
        }
    }

    pub(super) fn running_request(&self, id: &Value) -> Option<RunningRequest> {
        self.activity().running.get(&id.to_string()).cloned()
    }

    /// The stream of this id, and the permission that resuming it needs.
    pub(super) fn stream(&self, id: u64) -> Option<(Arc<EventStream>, Option<Reauthorizer>)> {
        let activity = self.activity();
        let standalone = activity.standalone.as_ref().filter(|stream| stream.id() == Some(id));
        let standalone = standalone.map(|stream| (Arc::clone(stream), None));
        standalone.or_else(|| {
            activity
                .streams
                .get(&id)
                .map(|(stream, authorization)| (Arc::clone(stream), Some(authorization.clone())))
        })
    }

    /// The standalone stream, which is created on first use.
    pub(super) fn standalone(
        &self,
        create: impl FnOnce() -> Arc<EventStream>,
    ) -> Option<Arc<EventStream>> {
        let mut activity = self.activity();
        if activity.is_ended {
            return None;
        }
        Some(Arc::clone(activity.standalone.get_or_insert_with(create)))
    }

    /// Notifies the client on its standalone stream.
    pub(super) fn notify(&self, event: StreamEvent) {
        let standalone = self.activity().standalone.clone();
        if let Some(stream) = standalone {
            stream.push_unless_pending(event);
        }
    }

    /// Adds a subscription, which ends when the token is cancelled. `None`: the limit is reached.
    pub(super) fn subscribe(&self, uri: &str) -> Option<CancellationToken> {
        let mut activity = self.activity();
        let subscriptions = &mut activity.subscriptions;
        if subscriptions.len() >= SUBSCRIPTIONS_MAX && !subscriptions.contains_key(uri) {
            return None;
        }
        let cancelled = CancellationToken::new();
        subscriptions.insert(uri.to_owned(), cancelled.clone().drop_guard());
        Some(cancelled)
    }

    pub(super) fn unsubscribe(&self, uri: &str) {
        self.activity().subscriptions.remove(uri);
    }

    /// Registers a request to the client.
    pub(super) fn begin_client_request(
        &self,
        authorization: Reauthorizer,
        asked_in: Option<SpanContext>,
    ) -> ClientRequest<'_> {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.activity().pending.insert(id, PendingRequest { authorization, asked_in, sender });
        ClientRequest { session: self, id, receiver }
    }

    /// The permission that responding to this request needs. `None`: no call waits for a response.
    pub(super) fn pending_authorization(&self, id: &Value) -> Option<Reauthorizer> {
        Some(self.activity().pending.get(&id.as_i64()?)?.authorization.clone())
    }

    /// Links the span of a client's response to the question that it answers.
    pub(super) fn link_to_question(&self, response: &Span, id: &Value) {
        let asked_in = id.as_i64().and_then(|id| {
            self.activity().pending.get(&id).and_then(|pending| pending.asked_in.clone())
        });
        asked_in.iter().for_each(|asked_in| trace::link(response, asked_in));
    }

    /// Passes the client's response to the call that waits for it.
    pub(super) fn resolve(&self, id: &Value, response: Result<Value, Value>) {
        let pending = id.as_i64().and_then(|id| self.activity().pending.remove(&id));
        if let Some(pending) = pending {
            // The call may just have timed out.
            drop(pending.sender.send(response));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

impl ClientRequest<'_> {
    /// Waits for the client's response. `None`: it timed out, or the session has ended.
    pub(super) async fn response(mut self, within: Duration) -> Option<Result<Value, Value>> {
        tokio::time::timeout(within, &mut self.receiver).await.ok()?.ok()
    }
}

impl Drop for ClientRequest<'_> {
    fn drop(&mut self) {
        self.session.activity().pending.remove(&self.id);
    }
}
