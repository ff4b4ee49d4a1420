//! Admission: authenticates the caller before it reads a body, parses the message once and within
//! bounds, asks auth whether the caller may perform the operation, and plans the rest of the
//! request.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use drawbridge_runtime::RequestId;
use drawbridge_transport::CallContext;
use http::{HeaderValue, Method, Version, header, request::Parts};
use secrecy::SecretString;
use serde_json::Value;
use tracing::{Instrument as _, Span};

use crate::{
    admitted::{Accepts, Admission, Kind, Message, Plan},
    authorizer::{Authorizer, Reauthorizer},
    budget::{BodyBudget, ResponseBudget, discard},
    catalog::Catalogs,
    mcp::McpServer,
    metadata::{Endpoint, ProtectedResource},
    recorder::{CallRecorder, CallRecords, Ending},
    refusal::Refusal,
    request_log::RequestLog,
    traffic::limits::{RateLimitStatus, RateLimiter, client_address},
    traffic::queue::{AdmissionController, CallerHash, TokenBearer},
};

use self::{
    headers::{accept, bearer_token, check_headers},
    params::ParamsLimits,
    telemetry::request_span,
};

mod charge;
mod headers;
mod message;
mod params;
mod plan;
mod telemetry;

/// The longest that one request may take, even if its tool reports progress.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// What admission needs to admit a request.
pub(crate) struct AdmissionState {
    pub(crate) authorizer: Authorizer,
    pub(crate) server: McpServer,
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) limits: Arc<RateLimiter>,
    pub(crate) controller: Arc<AdmissionController>,
    pub(crate) resource: Arc<ProtectedResource>,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(crate) responses: Arc<ResponseBudget>,
    pub(crate) records: Arc<CallRecords>,
}

/// Admits a request and handles it, or rejects it.
pub(crate) async fn admit(State(state): State<Arc<AdmissionState>>, request: Request) -> Response {
    let request_id = request.extensions().get().cloned().unwrap_or_else(RequestId::generate);
    let mut context = CallContext::new(request_id, REQUEST_TIMEOUT);
    context.client_address = Some(client_address(request.extensions()));
    let endpoint = Endpoint::at(&state.resource, request.uri().path());
    let log = request.extensions().get::<Arc<RequestLog>>().cloned();
    let recorder = CallRecorder::begin(&state.records, &context, request.extensions().get(), log);
    let arrival = Arrival { context, endpoint, recorder };
    let (mut parts, body) = request.into_parts();
    // Removed, so that nothing behind admission can log or forward it.
    let token = parts.headers.remove(header::AUTHORIZATION);
    let admitted = match parts.method {
        // Boxed, so that the future that waits for the response is small.
        Method::POST => Box::pin(state.admit_message(&arrival, &mut parts, token, body)).await,
        _ => {
            let admitted = Box::pin(state.admit_other(&arrival, &mut parts, token)).await;
            admitted.map(|admission| (admission, None))
        }
    };
    let rate_limit = parts.extensions.remove::<RateLimitStatus>();
    let handled = match admitted {
        Ok((admission, message)) => state.handle(admission, message, &parts).await,
        Err(rejection) => Err(rejection),
    };
    let mut response = match handled {
        Ok(response) => response,
        Err((id, refusal)) => {
            let Arrival { context, endpoint, recorder } = arrival;
            let recorded = recorder.end(Ending::from(&refusal), 0).await;
            let refusal = recorded.err().unwrap_or(refusal);
            let mut response =
                refusal.into_response(id, &context.request_id, &state.challenge_endpoint(endpoint));
            // The server closes a connection with an unread body; the client should know.
            if parts.extensions.get::<UnreadBody>().is_some() {
                announce_close(&mut response, parts.version);
            }
            response
        }
    };
    if let Some(rate_limit) = rate_limit {
        rate_limit.write_headers(response.headers_mut());
    }
    response
}

/// A request as it arrived.
struct Arrival {
    context: CallContext,
    endpoint: Endpoint,
    recorder: Arc<CallRecorder>,
}

/// Marks a request whose body was not read to its end.
#[derive(Clone, Copy, Debug)]
struct UnreadBody;

/// Announces that the connection closes after this response. HTTP/2 has no header for it.
pub(crate) fn announce_close(response: &mut Response, version: Version) {
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A refusal, and the id of the rejected message.
type Rejection = (Value, Refusal);

impl AdmissionState {
    /// The endpoint whose metadata a challenge names. An unknown endpoint has no metadata, so its
    /// challenge names the endpoint for all services, whose tokens are valid everywhere.
    fn challenge_endpoint(&self, endpoint: Endpoint) -> Endpoint {
        match self.check_endpoint(&endpoint) {
            Ok(()) => endpoint,
            Err(_) => Endpoint { namespace: None, ..endpoint },
        }
    }

    /// Rejects an unknown endpoint. INVARIANT: only authenticated callers learn which endpoints
    /// exist.
    fn check_endpoint(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        match &endpoint.namespace {
            Some(namespace) if !self.catalogs.load().has_endpoint(namespace) => {
                Err(Refusal::NoEndpoint)
            }
            _ => Ok(()),
        }
    }

    /// Passes an admitted request to the MCP server.
    async fn handle(
        &self,
        admission: Admission,
        message: Option<Message>,
        parts: &Parts,
    ) -> Result<Response, Rejection> {
        let span = admission.span.clone();
        let Some(message) = message else {
            let handling =
                self.server.handle_session_method(&admission, &parts.method, &parts.headers);
            let handled = handling.instrument(span).await;
            // It makes no call.
            handled.iter().for_each(|_| admission.recorder.discard());
            return handled.map_err(|refusal| (Value::Null, refusal));
        };
        let (id, kind, recorder) =
            (message.id.clone(), message.kind, Arc::clone(&admission.recorder));
        let handling =
            self.server.handle(admission, message, &parts.headers).instrument(span.clone());
        let handled = Box::pin(handling).await;
        if handled.is_ok() && kind != Kind::Request {
            // It is recorded with the request that it belongs to.
            recorder.discard();
        }
        handled.map_err(|refusal| {
            refusal.record_code(&span);
            (id, refusal)
        })
    }

    /// Admits a GET or DELETE, which belongs to a session.
    async fn admit_other(
        &self,
        arrival: &Arrival,
        parts: &mut Parts,
        token: Option<HeaderValue>,
    ) -> Result<Admission, Rejection> {
        let Arrival { context, endpoint, recorder } = arrival;
        let rejection = |refusal| (Value::Null, refusal);
        let authenticated = self.authenticate(arrival, parts, token).await;
        let (token, bearer, principal) = authenticated.map_err(rejection)?;
        let allowed = match self.authorizer.connect(context, &token, &endpoint.resource()).await {
            Ok(allowed) => allowed,
            Err(refusal) => {
                return Err(rejection(self.forget_rejected(parts, &bearer, refusal).await));
            }
        };
        self.charge_caller(parts, &allowed.principal, None).await.map_err(rejection)?;
        self.check_endpoint(endpoint).map_err(rejection)?;
        if parts.method == Method::GET {
            self.responses.admit(principal).await.map_err(rejection)?;
        }
        Ok(Admission {
            context: context.clone(),
            grant: allowed.grant(),
            reauthorizer: Reauthorizer::new(&self.authorizer, context, token, endpoint.resource()),
            plan: Plan::Connect,
            // Without an Accept header the client accepts a stream.
            accepts: accept(&parts.headers).unwrap_or(Accepts::Json),
            budget: self.responses.for_caller(principal),
            span: Span::current(),
            recorder: Arc::clone(recorder),
            _permits: None,
        })
    }

    /// Authenticates the token before the body is read. A bearer that is not known to be
    /// authenticated is charged to the limits of its address first, and queues with all other
    /// requests of that address.
    async fn authenticate(
        &self,
        Arrival { context, endpoint, recorder }: &Arrival,
        parts: &Parts,
        token: Option<HeaderValue>,
    ) -> Result<(SecretString, TokenBearer, CallerHash), Refusal> {
        let token = match bearer_token(token.as_ref()) {
            Ok(token) => token,
            Err(refusal) => return Err(self.charge_address(parts).await.err().unwrap_or(refusal)),
        };
        let bearer = self.controller.bearer(&token);
        if let Some(principal) = bearer.principal() {
            self.controller.principal(&bearer).iter().for_each(|it| recorder.authenticated(it));
            return Ok((token, bearer, principal));
        }
        self.charge_address(parts).await?;
        let queued = self.controller.acquire(&bearer, client_address(&parts.extensions)).await;
        let _permit = queued.map_err(|_| Refusal::Overloaded)?;
        let resource = endpoint.resource();
        let allowed = self.authorizer.authenticate(context, &token, &resource).await?;
        recorder.authenticated(&allowed.principal);
        let principal = self.controller.mark_authenticated(&bearer, &allowed.principal);
        Ok((token, bearer.authenticated(principal), principal))
    }

    /// Forgets a token that auth no longer accepts, and charges this request to the limits of its
    /// address, as later ones will be.
    async fn forget_rejected(
        &self,
        parts: &Parts,
        bearer: &TokenBearer,
        refusal: Refusal,
    ) -> Refusal {
        if !matches!(refusal, Refusal::Unauthenticated { .. }) {
            return refusal;
        }
        self.controller.forget(bearer);
        self.charge_address(parts).await.err().unwrap_or(refusal)
    }

    async fn admit_message(
        &self,
        arrival: &Arrival,
        parts: &mut Parts,
        token: Option<HeaderValue>,
        body: Body,
    ) -> Result<(Admission, Option<Message>), Rejection> {
        let Arrival { context, endpoint, recorder } = arrival;
        let rejection = |refusal| (Value::Null, refusal);
        let authenticated = self.authenticate(arrival, parts, token).await;
        let (token, bearer, principal) = match authenticated {
            Ok(authenticated) => authenticated,
            Err(refusal) => {
                if !discard(body).await {
                    parts.extensions.insert(UnreadBody);
                }
                return Err(rejection(refusal));
            }
        };
        // Read before any response: a client that is still sending would lose its connection.
        let read = self.bodies.read(principal, body).await;
        if read.is_err() {
            parts.extensions.insert(UnreadBody);
        }
        let queued = self.controller.acquire(&bearer, client_address(&parts.extensions)).await;
        let request_permit = queued.map_err(|_| rejection(Refusal::Overloaded))?;
        let limits = ParamsLimits::from(self.bodies.limits());
        let read = read.and_then(|(body, mut permit)| {
            let accepts = check_headers(parts)?;
            let message = Message::parse(&body, limits, &mut permit)?;
            recorder.parsed(message.known_method(), message.revision(), body.len());
            Ok((message, permit, accepts))
        });
        let (message, body_permit, accepts) = match read {
            Ok(read) => read,
            Err(refusal) => {
                return Err(rejection(
                    self.charge_rejected(context, endpoint, parts, &token, refusal).await,
                ));
            }
        };
        if message.kind == Kind::Request {
            self.responses
                .admit(principal)
                .await
                .map_err(|refusal| (message.id.clone(), refusal))?;
        }

        let span = request_span(&message, context, parts);
        recorder.traced(&span);
        recorder.check().map_err(|refusal| (message.id.clone(), refusal))?;
        let planning = plan::plan_message(self, arrival, &token, &message).instrument(span.clone());
        let planned = match planning.await {
            Ok((plan, grant)) => {
                let charged = self.charge_caller(parts, &grant.principal, plan.tool());
                charged.instrument(span.clone()).await.map(|()| (plan, grant))
            }
            Err(refusal @ Refusal::Unauthenticated { .. }) => {
                Err(self.forget_rejected(parts, &bearer, refusal).await)
            }
            Err(refusal) if self.limits.is_empty() => Err(refusal),
            Err(refusal) => {
                Err(self.charge_rejected(context, endpoint, parts, &token, refusal).await)
            }
        };
        let (plan, grant) = planned.map_err(|refusal| {
            refusal.record_code(&span);
            (message.id.clone(), refusal)
        })?;
        self.check_endpoint(endpoint).map_err(|refusal| (message.id.clone(), refusal))?;
        let admission = Admission {
            context: context.clone(),
            grant,
            reauthorizer: Reauthorizer::new(&self.authorizer, context, token, endpoint.resource()),
            _permits: Some((request_permit, body_permit))
                .filter(|_| !matches!(plan, Plan::Watch(_))),
            plan,
            accepts,
            budget: self.responses.for_caller(principal),
            span,
            recorder: Arc::clone(recorder),
        };
        Ok((admission, Some(message)))
    }
}
