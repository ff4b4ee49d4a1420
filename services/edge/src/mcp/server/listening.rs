//! Clients that listen: GET in a session, and `subscriptions/listen` without one.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, StatusCode};

use super::{
    Admission, EventBody, EventStream, Lease, Message, Operation, Owner, Plan, Refusal, Replicas,
    Revision, Right, SESSION_ID, SILENCE, Server, Session, Subscription, invalid_params, malformed,
    may, no_method, revision, wire,
};
use crate::mcp::{
    replicas::{Place, Subject},
    session::Slot,
    sse,
};

const LAST_EVENT_ID: &str = "last-event-id";

/// A stream, and from where on it is read.
struct Source {
    stream: Arc<EventStream>,
    last: Option<u64>,
    /// What whoever reads it must be allowed. None: nothing but its session.
    operation: Option<Arc<Operation>>,
    /// Where it is that the stream is a copy of.
    elsewhere: Option<(Arc<Replicas>, Place, Subject)>,
}

impl Server {
    /// Answers GET and DELETE, which belong to a session.
    ///
    /// # Errors
    /// When there is no such session, or no such stream in it.
    pub(crate) async fn answer_other(
        &self,
        admission: &Admission,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let version = match revision::header(headers) {
            Ok(version) => version,
            Err(wrong) => return Ok(malformed(&serde_json::Value::Null, wrong, admission)),
        };
        let id = headers.get(SESSION_ID).filter(|_| !version.is_some_and(Revision::is_stateless));
        let Some(id) = id.filter(|_| [Method::GET, Method::DELETE].contains(method)) else {
            return Err(Refusal::Method);
        };
        if let Some(wrong) = version.and_then(|version| revision::check_known(version).err()) {
            return Ok(malformed(&serde_json::Value::Null, wrong, admission));
        }
        let (principal, resource) = (&admission.grant.principal, admission.again.resource());
        let session = self.sessions.find(id, principal, resource).await?;
        if method == Method::DELETE {
            self.sessions.end(&session).await;
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        if !admission.accepts.streams() {
            return Err(Refusal::NotAcceptable);
        }
        let slot = Some(self.listeners.take(Owner::of(principal))?);
        let Source { stream, last, operation, elsewhere } = self.source(&session, headers).await?;
        let mut asks = vec![admission.again.clone()];
        let is_call = operation.is_some();
        if let Some(operation) = operation {
            // Whoever takes the stream of a call up again must be allowed to make it.
            if !may(admission, &operation).await? {
                return Err(Refusal::EventId);
            }
            asks.push(admission.again.of(operation));
        }
        let reader = stream.read(last).ok_or(Refusal::EventId)?;
        if let Some((replicas, place, subject)) = elsewhere {
            let (again, budget) = (admission.again.clone(), admission.budget.clone());
            tokio::spawn(replicas.follow(place, subject, stream, again, budget));
        }
        let lease = Lease::new(asks, admission.grant.epoch, admission.grant.expires_at);
        let (session, first) = (Some(session), Some(sse::beginning()));
        let stopping = Some(self.stopping.clone());
        let body = self.body(reader, Right::Listening(lease), is_call);
        let budget = Some(admission.budget.clone());
        Ok(EventBody { first, session, budget, _slot: slot, stopping, ..body }.into_response())
    }

    /// What a client reads that listens in a session.
    async fn source(&self, session: &Session, headers: &HeaderMap) -> Result<Source, Refusal> {
        let last = headers.get(LAST_EVENT_ID).map(|id| id.to_str().ok().and_then(sse::event_id));
        let Some(last) = last else {
            let make = || EventStream::new(&self.bounds, Some(rand::random()));
            let stream = session.standalone(make).ok_or(Refusal::NoSession)?;
            return Ok(Source { stream, last: None, operation: None, elsewhere: None });
        };
        let (id, last) = last.ok_or(Refusal::EventId)?;
        if let Some((stream, needs)) = session.stream(id) {
            let operation = needs.map(|needs| Arc::clone(needs.operation()));
            return Ok(Source { stream, last: Some(last), operation, elsewhere: None });
        }
        let replicas = self.replicas.clone().ok_or(Refusal::EventId)?;
        let subject = Subject::Stream(session.id, id, last);
        let place = replicas.find(&subject).await?.ok_or(Refusal::EventId)?;
        let (stream, operation) = (EventStream::copy(&self.bounds, id), place.operation.clone());
        Ok(Source { stream, last: None, operation, elsewhere: Some((replicas, place, subject)) })
    }

    /// `subscriptions/listen`.
    pub(super) fn listen(
        &self,
        admission: &Admission,
        message: &Message,
    ) -> Result<Response, Refusal> {
        let stream = EventStream::new(&self.bounds, None);
        let Plan::Watch(watches) = &admission.plan else {
            let wrong = wire::error(&message.id, &no_method(admission));
            return Ok(wire::whole(StatusCode::NOT_FOUND, wrong));
        };
        let Some(subscription) = Subscription::new(&message.id, &message.params, &stream) else {
            let wrong = wire::error(&message.id, &invalid_params(admission));
            return Ok(wire::whole(StatusCode::OK, wrong));
        };
        if !admission.accepts.streams() {
            return Err(Refusal::NotAcceptable);
        }
        let slot = Some(self.listeners.take(Owner::of(&admission.grant.principal))?);
        let operations =
            watches.iter().map(|watch| admission.again.of(Arc::clone(&watch.call.operation)));
        let asks = std::iter::once(admission.again.clone()).chain(operations).collect();
        // What was allowed in several epochs is decided again at once.
        let epoch = admission.grant.epoch;
        let is_one = watches.iter().all(|watch| watch.call.epoch == epoch);
        let lease =
            Lease::new(asks, if is_one { epoch } else { SILENCE }, admission.grant.expires_at);
        let last = Some(subscription.result());
        // Not the whole admission: its span and all that it has would live as long as the stream.
        let (again, request_id) = (admission.again.clone(), admission.context.request_id.clone());
        let watches = Arc::clone(watches);
        let catalogs = Arc::clone(&self.handler.catalogs);
        let owner = Owner::of(&admission.grant.principal);
        let watched = watches.iter().map(|_| self.handler.watches.take(owner));
        let watched = watched.collect::<Result<Vec<Slot>, _>>()?;
        let work = async move {
            let _watched = watched;
            subscription.run(&request_id, &again, &watches, &catalogs).await;
        };
        let reader = stream.read(None).ok_or(Refusal::EventId)?;
        let body = self.body(reader, Right::Listening(lease), false);
        let (work, stopping) = (Some(futures::FutureExt::boxed(work)), Some(self.stopping.clone()));
        Ok(EventBody { work, last, _slot: slot, stopping, ..body }.into_response())
    }
}
