//! Streams of subscribed clients: GET in a session, and `subscriptions/listen` without one.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, StatusCode};

use super::{
    Admission, EventBody, EventStream, McpServer, Message, NO_EPOCH, Operation, Plan,
    ProtocolRevision, Refusal, ReplicaBus, SESSION_ID, SendPermission, Session, SlotOwner,
    StreamLease, Subscription, invalid_params, may_perform, reject_malformed, revision,
    unknown_method, unread, wire,
};
use crate::{
    mcp::{
        replicas::{RemoteItem, RemoteLocation},
        session::Slot,
        sse,
    },
    recorder::Ending,
};

const LAST_EVENT_ID: &str = "last-event-id";

/// A stream to read, and the last event that its client has.
struct StreamSource {
    stream: Arc<EventStream>,
    last: Option<u64>,
    /// The operation that the reader must be permitted to perform. `None`: its session is enough.
    operation: Option<Arc<Operation>>,
    /// Where the original is, if the stream is a copy.
    original: Option<(Arc<ReplicaBus>, RemoteLocation, RemoteItem)>,
}

impl McpServer {
    /// Handles GET and DELETE, which need a session.
    ///
    /// # Errors
    /// When the session, or the stream in it, does not exist.
    pub(crate) async fn handle_session_method(
        &self,
        admission: &Admission,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let version = match revision::header(headers) {
            Ok(version) => version,
            Err(error) => return Ok(reject_malformed(&serde_json::Value::Null, error, admission)),
        };
        let id = headers
            .get(SESSION_ID)
            .filter(|_| !version.is_some_and(ProtocolRevision::is_stateless_version));
        let Some(id) = id.filter(|_| [Method::GET, Method::DELETE].contains(method)) else {
            return Err(Refusal::Method);
        };
        if let Some(error) = version.and_then(|version| revision::check_known(version).err()) {
            return Ok(reject_malformed(&serde_json::Value::Null, error, admission));
        }
        let (principal, resource) = (&admission.grant.principal, admission.reauthorizer.resource());
        let session = self.sessions.find(id, principal, resource).await?;
        if method == Method::DELETE {
            self.sessions.end(&session).await;
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        if !admission.accepts.allows_stream() {
            return Err(Refusal::NotAcceptable);
        }
        let slot = Some(self.listener_slots.acquire(SlotOwner::of(principal))?);
        let StreamSource { stream, last, operation, original } =
            self.open_stream(&session, headers).await?;
        let mut authorizations = vec![admission.reauthorizer.clone()];
        let is_call = operation.is_some();
        let runs_here = is_call && original.is_none();
        if let Some(operation) = operation {
            // Resuming the stream of a call needs the permission to make the call.
            if !may_perform(admission, &operation).await? {
                return Err(Refusal::EventId);
            }
            authorizations.push(admission.reauthorizer.for_operation(operation));
        }
        let reader = stream.open_reader(last).ok_or(Refusal::EventId)?;
        if let Some((replicas, location, item)) = original {
            let (reauthorizer, budget) = (admission.reauthorizer.clone(), admission.budget.clone());
            let following = replicas.follow(location, item, stream, reauthorizer, budget);
            self.handler.tasks.spawn_until_stopping(following);
        }
        let lease =
            StreamLease::new(authorizations, admission.grant.epoch, admission.grant.expires_at);
        let (session, first) = (Some(session), Some(sse::opening_comment()));
        // The stream of a call that runs here ends with the call.
        let draining = (!runs_here).then(|| self.handler.tasks.draining());
        let body = self.body(reader, SendPermission::Listening(lease), is_call);
        let budget = Some(admission.budget.clone());
        Ok(EventBody { first, session, budget, _slot: slot, draining, ..body }.into_response())
    }

    /// Opens the stream that a GET in a session names, or the session's standalone stream.
    async fn open_stream(
        &self,
        session: &Session,
        headers: &HeaderMap,
    ) -> Result<StreamSource, Refusal> {
        let last =
            headers.get(LAST_EVENT_ID).map(|id| id.to_str().ok().and_then(sse::parse_event_id));
        let Some(last) = last else {
            let create = || EventStream::new(&self.bounds, Some(rand::random()));
            let stream = session.standalone(create).ok_or(Refusal::NoSession)?;
            return Ok(StreamSource { stream, last: None, operation: None, original: None });
        };
        let (id, last) = last.ok_or(Refusal::EventId)?;
        if let Some((stream, authorization)) = session.stream(id) {
            let operation =
                authorization.map(|authorization| Arc::clone(authorization.operation()));
            return Ok(StreamSource { stream, last: Some(last), operation, original: None });
        }
        let replicas = self.replicas.clone().ok_or(Refusal::EventId)?;
        let item = RemoteItem::Stream(session.id, id, last);
        let location = replicas.find(&item).await?.ok_or(Refusal::EventId)?;
        let (stream, operation) = (EventStream::copy(&self.bounds, id), location.operation.clone());
        Ok(StreamSource {
            stream,
            last: None,
            operation,
            original: Some((replicas, location, item)),
        })
    }

    /// `subscriptions/listen`.
    pub(super) fn listen(
        &self,
        admission: &Admission,
        message: &Message,
    ) -> Result<Response, Refusal> {
        let stream = EventStream::new(&self.bounds, None);
        let Plan::Watch(watches) = &admission.plan else {
            let (status, error) = match &admission.plan {
                Plan::Unread => (StatusCode::OK, unread(admission)),
                _ => (StatusCode::NOT_FOUND, unknown_method(admission)),
            };
            admission.recorder.set_ending(Ending::refused("unknown_item"));
            return Ok(wire::json_response(status, wire::error(&message.id, &error)));
        };
        let Some(subscription) = Subscription::new(&message.id, &message.params, &stream) else {
            admission.recorder.set_ending(Ending::refused("invalid_params"));
            let error = wire::error(&message.id, &invalid_params(admission));
            return Ok(wire::json_response(StatusCode::OK, error));
        };
        if !admission.accepts.allows_stream() {
            return Err(Refusal::NotAcceptable);
        }
        let slot = Some(self.listener_slots.acquire(SlotOwner::of(&admission.grant.principal))?);
        let operations = watches
            .iter()
            .map(|watch| admission.reauthorizer.for_operation(Arc::clone(&watch.call.operation)));
        let authorizations =
            std::iter::once(admission.reauthorizer.clone()).chain(operations).collect();
        // Permissions of several epochs are checked again at once.
        let epoch = admission.grant.epoch;
        let is_one_epoch = watches.iter().all(|watch| watch.call.epoch == epoch);
        let lease = StreamLease::new(
            authorizations,
            if is_one_epoch { epoch } else { NO_EPOCH },
            admission.grant.expires_at,
        );
        let last = Some(subscription.result());
        // Not the whole admission: its span and budget would live as long as the stream.
        let (reauthorizer, request_id) =
            (admission.reauthorizer.clone(), admission.context.request_id.clone());
        let watches = Arc::clone(watches);
        let catalogs = Arc::clone(&self.handler.catalogs);
        let owner = SlotOwner::of(&admission.grant.principal);
        let slots = watches.iter().map(|_| self.handler.watch_slots.acquire(owner));
        let slots = slots.collect::<Result<Vec<Slot>, _>>()?;
        let work = async move {
            let _slots = slots;
            subscription.run(&request_id, &reauthorizer, &watches, &catalogs).await;
        };
        let reader = stream.open_reader(None).ok_or(Refusal::EventId)?;
        let body = self.body(reader, SendPermission::Listening(lease), false);
        let (work, draining) =
            (Some(futures::FutureExt::boxed(work)), Some(self.handler.tasks.draining()));
        Ok(EventBody { work, last, _slot: slot, draining, ..body }.into_response())
    }
}
