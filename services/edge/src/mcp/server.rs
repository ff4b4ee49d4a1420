//! Streamable HTTP, as a server of three revisions speaks it: what was admitted is answered, with one JSON
//! message where that is all, and with an event stream from the first message before the answer on.

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
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Instrument as _;

use super::{
    Handler,
    config::StreamsConfig,
    errors::{invalid_params, no_method, with_request},
    events::{Bounds, EventStream, Opening, Reader},
    exchange::Exchange,
    info, interaction,
    listen::{Subscription, notify_sessions},
    replicas::Replicas,
    revision::{self, Revision},
    session::{Owner, Session, Sessions, Slots, State, Store, sweep},
    sse::{EventBody, Right},
    wire,
};
use crate::{
    StartError,
    admission::authorizer::{Lease, SILENCE},
    admission::{Admission, Kind, Message, Plan},
    refusal::Refusal,
};

mod elsewhere;
mod listening;

/// The shortest time between two signs of life.
const SIGN_OF_LIFE_MIN: Duration = Duration::from_millis(50);

pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Answers what was admitted.
#[derive(Debug)]
pub(crate) struct Server {
    handler: Arc<Handler>,
    sessions: Arc<Sessions>,
    /// The other replicas. None: there is no Redis by which to reach them.
    replicas: Option<Arc<Replicas>>,
    /// Who listens.
    listeners: Arc<Slots>,
    bounds: Arc<Bounds>,
    quiet: Duration,
    keep_alive: Duration,
    stopping: CancellationToken,
}

/// How many sessions there may be, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionBounds {
    pub(crate) max: usize,
    pub(crate) per_principal_max: usize,
    pub(crate) idle: Duration,
}

impl Server {
    pub(crate) fn new(
        handler: Handler,
        streams: &StreamsConfig,
        sessions: SessionBounds,
        secret: &SecretString,
        redis_url: Option<&SecretString>,
        stopping: CancellationToken,
    ) -> Result<Self, StartError> {
        let slots = Slots::new("sessions", sessions.max, sessions.per_principal_max);
        let bounds = Bounds {
            events_max: streams.stream_events_max.try_into().unwrap_or(usize::MAX),
            bytes_max: streams.stream_bytes_max,
            retained_bytes_max: streams.streams_bytes_max,
            retained_bytes: AtomicUsize::new(0),
        };
        let store = redis_url.map(|url| Store::new(url, sessions.idle)).transpose()?.map(Arc::new);
        let replicas = redis_url.zip(store.clone());
        let replicas =
            replicas.map(|(url, store)| Replicas::new(secret, url, store)).transpose()?;
        Ok(Self {
            handler: Arc::new(handler),
            sessions: Arc::new(Sessions::new(secret, slots, sessions.idle, store)),
            replicas,
            listeners: Slots::new(
                "streams",
                streams.streams_max,
                streams.streams_per_principal_max,
            ),
            bounds: Arc::new(bounds),
            quiet: Duration::from_millis(streams.stream_quiet_ms),
            keep_alive: Duration::from_millis(streams.stream_keep_alive_ms),
            stopping,
        })
    }

    /// What goes on beside requests, until the edge stops.
    pub(crate) fn upkeep(&self) -> impl Future<Output = ()> + Send + 'static {
        let (sessions, catalogs) = (Arc::clone(&self.sessions), Arc::clone(&self.handler.catalogs));
        let sweeping = sweep(Arc::clone(&sessions), self.stopping.clone());
        let receiving = self
            .replicas
            .clone()
            .map(|replicas| replicas.receive(Arc::clone(&sessions), self.stopping.clone()));
        let telling = notify_sessions(sessions, catalogs, self.stopping.clone());
        async move {
            tokio::join!(sweeping, telling, futures::future::OptionFuture::from(receiving));
        }
    }

    /// Answers a message.
    ///
    /// # Errors
    /// When it is refused: its session is not there, or the caller may not answer for it.
    pub(crate) async fn answer(
        &self,
        admission: Admission,
        message: Message,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let admission = Arc::new(admission);
        // Of a tool that the caller may not call, nothing is told.
        let schema =
            |_: &str| admission.plan.tool().map(|tool| Arc::clone(&tool.tool.input_schema));
        let revision = match revision::of(headers, &message, schema) {
            Ok(revision) => revision,
            Err(wrong) => return Ok(malformed(&message.id, wrong, &admission)),
        };
        if revision == Revision::Stateless {
            return match message.kind {
                Kind::Request if message.method == "subscriptions/listen" => {
                    self.listen(&admission, &message)
                }
                _ => self.answer_alone(admission, message, revision).await,
            };
        }
        if message.method == "initialize" && message.kind == Kind::Request {
            return self.initialize(&admission, &message).await;
        }
        match headers.get(SESSION_ID) {
            Some(id) => {
                let (principal, resource) =
                    (&admission.grant.principal, admission.again.resource());
                let session = self.sessions.find(id, principal, resource).await?;
                self.answer_in_session(session, admission, message).await
            }
            None => self.answer_alone(admission, message, revision).await,
        }
    }

    /// Answers what belongs to no session. The work ends with the connection.
    async fn answer_alone(
        &self,
        admission: Arc<Admission>,
        message: Message,
        revision: Revision,
    ) -> Result<Response, Refusal> {
        match message.kind {
            Kind::Request => {}
            Kind::Notification => return Ok(StatusCode::ACCEPTED.into_response()),
            Kind::Response => {
                return Err(Refusal::Invalid(
                    "nothing waits for a response without a session".to_owned(),
                ));
            }
        }
        let stream = EventStream::new(&self.bounds, None);
        let streams = admission.accepts.streams();
        let exchange = Exchange::direct(revision, &message.params, Arc::clone(&stream), streams);
        let quiet = admission.accepts.quiet(self.quiet);
        let span = admission.span.clone();
        let mut work = self.work(admission, message, exchange).fuse().boxed();
        let mut opening = std::pin::pin!(stream.opening(quiet));
        let opening = tokio::select! {
            biased;
            () = &mut work => opening.await,
            opening = &mut opening => opening,
        };
        match opening {
            Opening::Whole(status, message) => Ok(wire::whole(status, message)),
            Opening::Stream => {
                let reader = stream.read(None).ok_or(Refusal::NoSession)?;
                // Not polled by the response alone: a client that does not read would stop its clocks.
                let work = AbortOnDropHandle::new(tokio::spawn(work.instrument(span)));
                let work = async move { drop(work.await) }.boxed();
                Ok(EventBody { work: Some(work), ..self.body(reader, Right::Admitted, true) }
                    .into_response())
            }
        }
    }

    /// Does what a request asks for, and finishes its stream with the answer. Not within the request's span, in which
    /// the request is answered: only a task of its own needs to enter it.
    fn work(
        &self,
        admission: Arc<Admission>,
        message: Message,
        exchange: Exchange,
    ) -> impl Future<Output = ()> + Send + 'static {
        let handler = Arc::clone(&self.handler);
        async move {
            let outcome = handler.handle(&admission, &message, &exchange).await;
            let (status, answer) = wire::answer(&message.id, outcome, exchange.revision);
            let unsent = admission.budget.charge(answer.len());
            exchange.stream.finish(status, answer, unsent);
        }
    }

    /// The body of a stream: of a call, or of a client that listens.
    fn body(&self, reader: Reader, right: Right, is_call: bool) -> EventBody {
        EventBody {
            reader,
            work: None,
            right,
            keep_alive: if is_call { self.quiet.max(SIGN_OF_LIFE_MIN) } else { self.keep_alive },
            last: None,
            stopping: None,
            first: None,
            session: None,
            budget: None,
            _slot: None,
            is_over: false,
        }
    }

    /// Opens a session.
    async fn initialize(
        &self,
        admission: &Admission,
        message: &Message,
    ) -> Result<Response, Refusal> {
        let asked = message.params.get("protocolVersion").and_then(Value::as_str);
        let client = message.params.get("capabilities").cloned().unwrap_or_default();
        let client: Option<Option<ClientCapabilities>> = serde_json::from_value(client).ok();
        let (Some(asked), Some(client)) = (asked, client) else {
            let wrong = wire::error(&message.id, &invalid_params(admission));
            return Ok(wire::whole(StatusCode::OK, wrong));
        };
        let revision = Revision::negotiated(asked);
        let state = State::opened(revision, &interaction::capabilities(client.as_ref()));
        let (principal, resource) = (&admission.grant.principal, admission.again.resource());
        let id = self.sessions.open(principal, resource, state).await?;
        let mut info = info(&admission.plan);
        info.protocol_version = revision.version();
        let (status, answer) =
            wire::answer(&message.id, Ok(ServerResult::InitializeResult(info).into()), revision);
        let mut response = wire::whole(status, answer);
        response.headers_mut().insert(SESSION_ID, id);
        Ok(response)
    }

    async fn answer_in_session(
        &self,
        session: Arc<Session>,
        admission: Arc<Admission>,
        message: Message,
    ) -> Result<Response, Refusal> {
        match message.kind {
            Kind::Request => self.request_in_session(session, admission, message).await,
            Kind::Notification => {
                if message.method == "notifications/cancelled" {
                    let id = message.params.get("requestId").unwrap_or(&Value::Null);
                    match session.running(id) {
                        // Only who may make a call may cancel it.
                        Some(running) if may(&admission, running.needs.operation()).await? => {
                            running.cancel.cancel();
                        }
                        Some(_) => {}
                        None => self.cancel_elsewhere(session.id, id.clone(), admission),
                    }
                }
                Ok(StatusCode::ACCEPTED.into_response())
            }
            Kind::Response => {
                let Message { id, result, error, .. } = message;
                let answer = result.ok_or_else(|| error.unwrap_or_default());
                match session.asked(&id) {
                    // An answer counts as the call that asked: a person's consent is the caller's.
                    Some(needs) if may(&admission, needs.operation()).await? => {
                        session.answer(&id, answer)
                    }
                    Some(_) => {}
                    None => self.answer_elsewhere(session.id, &id, answer, &admission).await?,
                }
                Ok(StatusCode::ACCEPTED.into_response())
            }
        }
    }

    /// Answers a request in a session. The work goes on when the connection breaks: a client may take the stream
    /// up again, and has to cancel what it no longer wants.
    async fn request_in_session(
        &self,
        session: Arc<Session>,
        admission: Arc<Admission>,
        message: Message,
    ) -> Result<Response, Refusal> {
        let stream = EventStream::new(&self.bounds, Some(rand::random()));
        let operation = admission.plan.operation().cloned();
        let needs = operation
            .map_or_else(|| admission.again.clone(), |operation| admission.again.of(operation));
        let id = message.id.clone();
        let running = session.begin(&id, &stream, needs.clone())?;
        let lease = Lease::new(vec![needs], admission.grant.epoch, admission.grant.expires_at);
        let accepts = admission.accepts;
        let exchange = Exchange::in_session(
            Arc::clone(&session),
            &message.params,
            Arc::clone(&stream),
            accepts.streams(),
            running.cancel,
        );
        let span = admission.span.clone();
        let work = self.work(admission, message, exchange).instrument(span);
        let ending = Ending { session: Arc::clone(&session), id, stream: Arc::clone(&stream) };
        tokio::spawn(async move {
            work.await;
            drop(ending);
        });
        Ok(match stream.opening(accepts.quiet(self.quiet)).await {
            Opening::Whole(status, message) => {
                session.discard(&stream);
                wire::whole(status, message)
            }
            Opening::Stream => {
                let reader = stream.read(None).ok_or(Refusal::NoSession)?;
                let primes = stream.is_empty() && session.revision == Revision::November2025;
                let first = stream.id().filter(|_| primes).map(super::sse::priming);
                let body = self.body(reader, Right::Leased(lease), true);
                EventBody { first, session: Some(session), ..body }.into_response()
            }
        })
    }
}

/// Whether the caller of a request may also make the call that it belongs to. For whom the call's item is hidden there
/// is no such call.
async fn may(admission: &Admission, operation: &Arc<Operation>) -> Result<bool, Refusal> {
    match admission.again.of(Arc::clone(operation)).ask().await {
        Ok(_) => Ok(true),
        Err(refusal @ Refusal::Denied { is_hidden: true, .. }) => {
            refusal.record(&admission.context.request_id);
            Ok(false)
        }
        Err(refusal) => Err(refusal),
    }
}

/// A request in a session, until its work is done, however that ends.
struct Ending {
    session: Arc<Session>,
    id: Value,
    stream: Arc<EventStream>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let failed = ErrorData::internal_error("internal error", None);
        // Without effect where there is an answer.
        self.stream.finish(StatusCode::OK, wire::error(&self.id, &failed), None);
        self.session.finish(&self.id, &self.stream);
    }
}

/// The answer to a message whose headers and body do not fit.
fn malformed(id: &Value, wrong: ErrorData, admission: &Admission) -> Response {
    admission.span.record("error.type", "malformed");
    let wrong = with_request(wrong, admission);
    wire::whole(StatusCode::BAD_REQUEST, wire::error(id, &wrong))
}
