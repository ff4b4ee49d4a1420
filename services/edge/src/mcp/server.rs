//! The server side of Streamable HTTP in three revisions. The response to an admitted request is
//! one JSON message, or an event stream if another message precedes it.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use axum::response::{IntoResponse as _, Response};
use drawbridge_proto::auth::v1::Operation;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, StatusCode};
use rmcp::{
    ErrorData,
    model::{ClientCapabilities, ServerResult},
};
use secrecy::SecretString;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::{
    MethodHandler, capabilities,
    config::StreamsConfig,
    ending,
    errors::{invalid_params, unknown_method, unread, unrecorded, with_request},
    events::{BufferLimits, EventReader, EventStream, ResponseStart},
    exchange::Exchange,
    listen::{Subscription, notify_sessions},
    replicas::ReplicaBus,
    revision::{self, ProtocolRevision},
    server_info,
    session::{Session, SessionRegistry, SessionState, SessionStore, SlotOwner, Slots, sweep},
    sse::{EventBody, SendPermission},
    wire,
};
use crate::{
    StartError,
    admitted::{Admission, Kind, Message, Plan},
    authorizer::{NO_EPOCH, StreamLease},
    keys::SessionKeys,
    metrics::{SESSIONS, STREAMS},
    recorder::Ending,
    refusal::Refusal,
};

mod forward;
mod listening;

/// The shortest interval between two keep-alive comments.
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(50);

pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Responds to admitted messages.
#[derive(Debug)]
pub(crate) struct McpServer {
    handler: Arc<MethodHandler>,
    sessions: Arc<SessionRegistry>,
    /// Reaches the other replicas. `None`: the edge has no Redis.
    replicas: Option<Arc<ReplicaBus>>,
    /// Bounds the streams of subscribed clients.
    listener_slots: Arc<Slots>,
    bounds: Arc<BufferLimits>,
    quiet: Duration,
    keep_alive: Duration,
}

/// The limits of sessions, and how long an idle one lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    pub(crate) max: usize,
    pub(crate) per_principal_max: usize,
    pub(crate) idle: Duration,
}

impl McpServer {
    pub(crate) fn new(
        handler: MethodHandler,
        streams: &StreamsConfig,
        sessions: SessionLimits,
        keys: SessionKeys,
        redis_url: Option<&SecretString>,
    ) -> Result<Self, StartError> {
        let (max, per_principal_max) = (sessions.max, sessions.per_principal_max);
        let slots = Slots::new("sessions", max, per_principal_max, SESSIONS.get());
        let (max, per_principal_max) = (streams.streams_max, streams.streams_per_principal_max);
        let listener_slots = Slots::new("streams", max, per_principal_max, STREAMS.get());
        let bounds = BufferLimits {
            events_max: streams.stream_events_max.try_into().unwrap_or(usize::MAX),
            bytes_max: streams.stream_bytes_max,
            retained_bytes_max: streams.streams_bytes_max,
            retained_bytes: AtomicUsize::new(0),
        };
        let store =
            redis_url.map(|url| SessionStore::new(url, sessions.idle)).transpose()?.map(Arc::new);
        let replicas = redis_url.zip(store.clone());
        let replicas =
            replicas.map(|(url, store)| ReplicaBus::new(keys.messages, url, store)).transpose()?;
        Ok(Self {
            handler: Arc::new(handler),
            sessions: Arc::new(SessionRegistry::new(keys.ids, slots, sessions.idle, store)),
            replicas,
            listener_slots,
            bounds: Arc::new(bounds),
            quiet: Duration::from_millis(streams.stream_quiet_ms),
            keep_alive: Duration::from_millis(streams.stream_keep_alive_ms),
        })
    }

    /// Runs the background work until the edge stops: expiry, notifications, messages of replicas.
    pub(crate) fn run_maintenance(&self) -> impl Future<Output = ()> + Send + 'static {
        let (sessions, catalogs) = (Arc::clone(&self.sessions), Arc::clone(&self.handler.catalogs));
        let stopping = self.handler.tasks.stopping();
        let sweeping = sweep(Arc::clone(&sessions), stopping.clone());
        let receiving = self
            .replicas
            .clone()
            .map(|replicas| replicas.receive(Arc::clone(&sessions), stopping.clone()));
        let notifying = notify_sessions(sessions, catalogs, stopping);
        async move {
            tokio::join!(sweeping, notifying, futures::future::OptionFuture::from(receiving));
        }
    }

    /// Handles a message.
    ///
    /// # Errors
    /// When its session does not exist, or the caller lacks a permission.
    pub(crate) async fn handle(
        &self,
        admission: Admission,
        message: Message,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let admission = Arc::new(admission);
        // The schema of a tool that the caller may not call is not revealed.
        let schema =
            |_: &str| admission.plan.tool().map(|tool| Arc::clone(&tool.tool.input_schema));
        let revision = match revision::determine(headers, &message, schema) {
            Ok(revision) => revision,
            Err(error) => {
                let response = reject_malformed(&message.id, error, &admission);
                return admission.recorder.respond(ending::MALFORMED, response).await;
            }
        };
        if revision == ProtocolRevision::Stateless {
            return match message.kind {
                Kind::Request if message.method == "subscriptions/listen" => {
                    let response = self.listen(&admission, &message)?;
                    admission.recorder.respond(Ending::OK, response).await
                }
                _ => self.handle_without_session(admission, message, revision).await,
            };
        }
        if message.method == "initialize" && message.kind == Kind::Request {
            return self.initialize(&admission, &message).await;
        }
        match headers.get(SESSION_ID) {
            Some(id) => {
                let (principal, resource) =
                    (&admission.grant.principal, admission.reauthorizer.resource());
                let session = self.sessions.find(id, principal, resource).await?;
                self.handle_in_session(session, admission, message).await
            }
            None => self.handle_without_session(admission, message, revision).await,
        }
    }

    /// Handles a message without a session. Its work ends with the connection.
    async fn handle_without_session(
        &self,
        admission: Arc<Admission>,
        message: Message,
        revision: ProtocolRevision,
    ) -> Result<Response, Refusal> {
        match message.kind {
            Kind::Request => {}
            Kind::Notification => return Ok(StatusCode::ACCEPTED.into_response()),
            Kind::Response => {
                return Err(Refusal::Invalid(
                    "a response needs a session; no call waits for it".to_owned(),
                ));
            }
        }
        let stream = EventStream::new(&self.bounds, None);
        let streams = admission.accepts.allows_stream();
        let exchange =
            Exchange::without_session(revision, &message.params, Arc::clone(&stream), streams);
        let quiet = admission.accepts.stream_after(self.quiet);
        let span = admission.span.clone();
        let mut work = self.run_request(admission, message, exchange).fuse().boxed();
        let mut start = std::pin::pin!(stream.response_start(quiet));
        let start = tokio::select! {
            biased;
            () = &mut work => start.await,
            start = &mut start => start,
        };
        match start {
            ResponseStart::Complete(status, message) => Ok(wire::json_response(status, message)),
            ResponseStart::Stream => {
                let reader = stream.open_reader(None).ok_or(Refusal::NoSession)?;
                // Spawned: a client that does not read its response would stop the work's timers.
                let work = AbortOnDropHandle::new(tokio::spawn(work.instrument(span)));
                let work = async move { drop(work.await) }.boxed();
                Ok(EventBody {
                    work: Some(work),
                    ..self.body(reader, SendPermission::Admitted, true)
                }
                .into_response())
            }
        }
    }

    /// Runs a request, and finishes its stream with the response. It does not enter the request's
    /// span: the caller runs in that span, and a separate task has to enter it.
    fn run_request(
        &self,
        admission: Arc<Admission>,
        message: Message,
        exchange: Exchange,
    ) -> impl Future<Output = ()> + Send + 'static {
        let handler = Arc::clone(&self.handler);
        async move {
            let outcome = handler.handle(&admission, &message, &exchange).await;
            let ending = ending::of(&outcome);
            if let Err(error) = &outcome {
                admission.span.record("rpc.response.status_code", error.code.0.to_string());
            }
            let (mut status, mut response) =
                wire::response(&message.id, outcome, exchange.revision);
            if admission.recorder.end(ending, response.len()).await.is_err() {
                let error = Err(unrecorded(&admission));
                (status, response) = wire::response(&message.id, error, exchange.revision);
            }
            let unread = admission.budget.charge(response.len());
            exchange.stream.finish(status, response, unread);
        }
    }

    /// The body of a stream: of a call, or of a subscribed client.
    fn body(&self, reader: EventReader, permission: SendPermission, is_call: bool) -> EventBody {
        EventBody {
            reader,
            work: None,
            permission,
            keep_alive: if is_call { self.quiet.max(KEEP_ALIVE_MIN) } else { self.keep_alive },
            last: None,
            draining: None,
            first: None,
            session: None,
            budget: None,
            _slot: None,
            is_ended: false,
        }
    }

    /// Opens a session.
    async fn initialize(
        &self,
        admission: &Admission,
        message: &Message,
    ) -> Result<Response, Refusal> {
        let requested = message.params.get("protocolVersion").and_then(Value::as_str);
        let client = message.params.get("capabilities").cloned().unwrap_or_default();
        let client: Option<Option<ClientCapabilities>> = serde_json::from_value(client).ok();
        let (Some(requested), Some(client)) = (requested, client) else {
            let error = wire::error(&message.id, &invalid_params(admission));
            let response = wire::json_response(StatusCode::OK, error);
            return admission.recorder.respond(Ending::refused("invalid_params"), response).await;
        };
        let revision = ProtocolRevision::negotiate(requested);
        let state =
            SessionState::new(revision, &capabilities::client_capabilities(client.as_ref()));
        let (principal, resource) = (&admission.grant.principal, admission.reauthorizer.resource());
        let id = self.sessions.open(principal, resource, state).await?;
        let mut info = server_info(&admission.plan);
        info.protocol_version = revision.version();
        let (status, message) =
            wire::response(&message.id, Ok(ServerResult::InitializeResult(info).into()), revision);
        let mut response = wire::json_response(status, message);
        response.headers_mut().insert(SESSION_ID, id);
        admission.recorder.respond(Ending::OK, response).await
    }

    async fn handle_in_session(
        &self,
        session: Arc<Session>,
        admission: Arc<Admission>,
        message: Message,
    ) -> Result<Response, Refusal> {
        match message.kind {
            Kind::Request => self.start_in_session(session, admission, message).await,
            Kind::Notification => {
                if message.method == "notifications/cancelled" {
                    let id = message.params.get("requestId").unwrap_or(&Value::Null);
                    match session.running_request(id) {
                        // Cancelling a call needs the permission to make it.
                        Some(running)
                            if may_perform(&admission, running.authorization.operation())
                                .await? =>
                        {
                            running.cancel.cancel();
                        }
                        Some(_) => {}
                        None => self.forward_cancellation(session.id, id.clone(), admission),
                    }
                }
                Ok(StatusCode::ACCEPTED.into_response())
            }
            Kind::Response => {
                let Message { id, result, error, .. } = message;
                let response = result.ok_or_else(|| error.unwrap_or_default());
                session.link_to_question(&admission.span, &id);
                match session.pending_authorization(&id) {
                    // Responding needs the permission to make the call: its caller must consent.
                    Some(authorization)
                        if may_perform(&admission, authorization.operation()).await? =>
                    {
                        session.resolve(&id, response);
                    }
                    Some(_) => {}
                    None => self.forward_response(session.id, &id, response, &admission).await?,
                }
                Ok(StatusCode::ACCEPTED.into_response())
            }
        }
    }

    /// Starts a request in a session. Its work continues when the connection breaks: a client may
    /// resume the stream, and must cancel a request that it no longer needs.
    async fn start_in_session(
        &self,
        session: Arc<Session>,
        admission: Arc<Admission>,
        message: Message,
    ) -> Result<Response, Refusal> {
        let stream = EventStream::new(&self.bounds, Some(rand::random()));
        let operation = admission.plan.operation().cloned();
        let authorization = operation.map_or_else(
            || admission.reauthorizer.clone(),
            |operation| admission.reauthorizer.for_operation(operation),
        );
        let id = message.id.clone();
        let running = session.start_request(&id, &stream, authorization.clone())?;
        let lease = StreamLease::new(
            vec![authorization],
            admission.grant.epoch,
            admission.grant.expires_at,
        );
        let accepts = admission.accepts;
        let exchange = Exchange::in_session(
            Arc::clone(&session),
            &message.params,
            Arc::clone(&stream),
            accepts.allows_stream(),
            running.cancel,
        );
        let span = admission.span.clone();
        let work = self.run_request(admission, message, exchange).instrument(span);
        let guard = RequestGuard { session: Arc::clone(&session), id, stream: Arc::clone(&stream) };
        self.handler.tasks.spawn_call(async move {
            work.await;
            drop(guard);
        });
        Ok(match stream.response_start(accepts.stream_after(self.quiet)).await {
            ResponseStart::Complete(status, message) => {
                session.discard_stream(&stream);
                wire::json_response(status, message)
            }
            ResponseStart::Stream => {
                let reader = stream.open_reader(None).ok_or(Refusal::NoSession)?;
                let is_primed =
                    stream.is_empty() && session.revision == ProtocolRevision::November2025;
                let first = stream.id().filter(|_| is_primed).map(super::sse::priming_event);
                let body = self.body(reader, SendPermission::Leased(lease), true);
                EventBody { first, session: Some(session), ..body }.into_response()
            }
        })
    }
}

/// Whether the caller of a request may also make the call that the request belongs to. A call of a
/// hidden item is treated as absent.
async fn may_perform(admission: &Admission, operation: &Arc<Operation>) -> Result<bool, Refusal> {
    match admission.reauthorizer.for_operation(Arc::clone(operation)).reauthorize().await {
        Ok(_) => Ok(true),
        Err(refusal @ Refusal::Denied { is_hidden: true, .. }) => {
            refusal.record(&admission.context.request_id);
            Ok(false)
        }
        Err(refusal) => Err(refusal),
    }
}

/// Finishes a request in a session when its work ends, even by a panic.
struct RequestGuard {
    session: Arc<Session>,
    id: Value,
    stream: Arc<EventStream>,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let error = ErrorData::internal_error("internal error", None);
        // Without effect if there is a response.
        self.stream.finish(StatusCode::OK, wire::error(&self.id, &error), None);
        self.session.finish_request(&self.id, &self.stream);
    }
}

/// The response to a message whose headers and body do not match.
fn reject_malformed(id: &Value, error: ErrorData, admission: &Admission) -> Response {
    let error = with_request(error, admission);
    wire::json_response(StatusCode::BAD_REQUEST, wire::error(id, &error))
}
