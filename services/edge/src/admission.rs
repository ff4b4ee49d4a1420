//! The gate: learns who is calling before it reads a body, reads the message once and within bounds, asks auth whether
//! the caller may do what it asks for, and passes on what is left to be done.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use drawbridge_sdk::{CallContext, CallerRequestId, RequestId, trace};
use http::{HeaderValue, Method, Version, header, request::Parts};
use secrecy::SecretString;
use serde_json::Value;
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    admission::authorizer::{Authorizer, Grant, Reauthorizer},
    catalog::Catalogs,
    mcp::Server,
    metadata::{Endpoint, ProtectedResource},
    refusal::Refusal,
    traffic::limits::{Limits, Standing, address},
    traffic::queue::{Caller, InProgress, Requests, Sender},
};

use self::{
    body::{BodyPermit, discard},
    headers::{Accepts, accept, bearer, check_headers},
};

pub use self::body::BodyLimits;
pub(crate) use self::{
    answers::{AnswerBudget, CallerBudget, Unsent},
    body::BodyBudget,
    cursor::{Cursor, PAGE_ITEMS_MAX},
    message::{ID_BYTES_MAX, Kind, Message},
    params::cut,
    plan::{Call, Listed, Plan, Watch, reading},
};

mod answers;
pub(crate) mod authorizer;
mod body;
mod budget;
mod count;
mod cursor;
mod headers;
mod message;
mod params;
mod plan;

/// The longest that one request may take, whatever its tool says.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

pub(crate) struct Gate {
    pub(crate) authorizer: Authorizer,
    pub(crate) server: Server,
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) resource: Arc<ProtectedResource>,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(crate) answers: Arc<AnswerBudget>,
}

/// A request that was admitted, and what is left to do for it.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The method, or `other`.
    pub(crate) method: &'static str,
    pub(crate) context: CallContext,
    pub(crate) grant: Grant,
    /// Asks auth again about what goes on later.
    pub(crate) again: Reauthorizer,
    pub(crate) plan: Plan,
    pub(crate) accepts: Accepts,
    /// The memory of its answer.
    pub(crate) budget: CallerBudget,
    pub(crate) span: Span,
    /// Held while the request is worked on. Whoever only listens is not in progress.
    _in_progress: Option<(InProgress, BodyPermit)>,
}

/// Lets a request pass, or refuses it.
pub(crate) async fn pass(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let request_id = request.extensions().get().cloned().unwrap_or_else(RequestId::generate);
    let mut context = CallContext::new(request_id, REQUEST_TIMEOUT);
    context.client_address = Some(address(request.extensions()));
    let endpoint = Endpoint::at(&gate.resource, request.uri().path());
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    // Taken out, so that nothing behind the gate can log it or send it on.
    let token = parts.headers.remove(header::AUTHORIZATION);
    let admitted = match parts.method {
        // Boxed, so that what waits for the answer later is small.
        Method::POST => {
            Box::pin(gate.admit_message(&context, &endpoint, &mut parts, token, body)).await
        }
        _ => {
            let admitted = Box::pin(gate.admit_other(&context, &endpoint, &mut parts, token)).await;
            admitted.map(|admission| (admission, None))
        }
    };
    let standing = parts.extensions.remove::<Standing>();
    let answered = match admitted {
        Ok((admission, message)) => gate.answer(admission, message, &parts, started).await,
        Err(refused) => Err(refused),
    };
    let mut response = match answered {
        Ok(response) => response,
        Err((id, refusal)) => {
            let mut response =
                refusal.into_response(id, &context.request_id, &gate.documented(endpoint));
            // The server closes a connection on which a body is still to come; the client should know.
            if parts.extensions.get::<Unread>().is_some() {
                close(&mut response, parts.version);
            }
            response
        }
    };
    if let Some(standing) = standing {
        standing.tell(response.headers_mut());
    }
    response
}

/// Marks a request whose body was not read to its end.
#[derive(Clone, Copy, Debug)]
struct Unread;

/// Says that the connection ends with this answer, where HTTP has a word for it.
pub(crate) fn close(response: &mut Response, version: Version) {
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Notes how long an operation took, to its first answer. Labels are methods and tools that exist.
fn measure(method: &'static str, tool: Option<String>, elapsed: Duration) {
    let tool = tool.unwrap_or_default();
    metrics::histogram!(
        "mcp_server_operation_duration_seconds", "mcp_method_name" => method, "gen_ai_tool_name" => tool
    )
    .record(elapsed);
}

/// A refusal, and the id of the message that is refused.
type Refused = (Value, Refusal);

impl Gate {
    /// The endpoint whose metadata a challenge names: what is not there has none, and a token for all endpoints is
    /// good for it too.
    fn documented(&self, endpoint: Endpoint) -> Endpoint {
        match self.check(&endpoint) {
            Ok(()) => endpoint,
            Err(_) => Endpoint { namespace: None, ..endpoint },
        }
    }

    /// Refuses an endpoint that is not there. Only who is known is told.
    fn check(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        match &endpoint.namespace {
            Some(namespace) if !self.catalogs.load().has_endpoint(namespace) => {
                Err(Refusal::NoEndpoint)
            }
            _ => Ok(()),
        }
    }

    /// Has the server answer what was admitted.
    async fn answer(
        &self,
        admission: Admission,
        message: Option<Message>,
        parts: &Parts,
        started: Instant,
    ) -> Result<Response, Refused> {
        let span = admission.span.clone();
        let Some(message) = message else {
            let answering = self.server.answer_other(&admission, &parts.method, &parts.headers);
            return answering.instrument(span).await.map_err(|refusal| (Value::Null, refusal));
        };
        let (method, id) = (admission.method, message.id.clone());
        let tool = admission.plan.tool().map(|tool| tool.item.name.clone());
        let answering =
            self.server.answer(admission, message, &parts.headers).instrument(span.clone());
        let answered = Box::pin(answering).await;
        measure(method, tool, started.elapsed());
        answered.map_err(|refusal| {
            span.record("error.type", refusal.word());
            (id, refusal)
        })
    }

    /// GET and DELETE, which belong to a session.
    async fn admit_other(
        &self,
        context: &CallContext,
        endpoint: &Endpoint,
        parts: &mut Parts,
        token: Option<HeaderValue>,
    ) -> Result<Admission, Refused> {
        let refused = |refusal| (Value::Null, refusal);
        let authenticated = self.authenticate(context, endpoint, parts, token).await;
        let (token, sender, principal) = authenticated.map_err(refused)?;
        let allowed = match self.authorizer.connect(context, &token, &endpoint.resource()).await {
            Ok(allowed) => allowed,
            Err(refusal) => {
                return Err(refused(self.forget_refused(parts, &sender, refusal).await));
            }
        };
        self.count(parts, &allowed.principal, None).await.map_err(refused)?;
        self.check(endpoint).map_err(refused)?;
        if parts.method == Method::GET {
            self.answers.admit(principal).await.map_err(refused)?;
        }
        Ok(Admission {
            method: message::OTHER,
            context: context.clone(),
            grant: allowed.grant(),
            again: Reauthorizer::new(&self.authorizer, context, token, endpoint.resource()),
            plan: Plan::Connect,
            // A client that says nothing takes a stream.
            accepts: accept(&parts.headers).unwrap_or(Accepts::Json),
            budget: self.answers.of(principal),
            span: Span::none(),
            _in_progress: None,
        })
    }

    /// Learns whose token it is, before anything of the body is read. Senders who are not known to be authenticated pay
    /// from the limits of their address first, and queue with all others of it.
    async fn authenticate(
        &self,
        context: &CallContext,
        endpoint: &Endpoint,
        parts: &Parts,
        token: Option<HeaderValue>,
    ) -> Result<(SecretString, Sender, Caller), Refusal> {
        let token = match bearer(token.as_ref()) {
            Ok(token) => token,
            Err(refusal) => return Err(self.charge_address(parts).await.err().unwrap_or(refusal)),
        };
        let sender = self.requests.sender(&token);
        if let Some(principal) = sender.principal() {
            return Ok((token, sender, principal));
        }
        self.charge_address(parts).await?;
        let queued = self.requests.acquire(&sender, address(&parts.extensions)).await;
        let _in_progress = queued.map_err(|_| Refusal::Overloaded)?;
        let span = tracing::info_span!("authenticate", request_id = %context.request_id);
        trace::continue_from(&span, &trace::Headers(&parts.headers));
        let resource = endpoint.resource();
        let asking = self.authorizer.authenticate(context, &token, &resource).instrument(span);
        let allowed = asking.await?;
        let principal = self.requests.mark_authenticated(&sender, &allowed.principal);
        Ok((token, sender.authenticated(principal), principal))
    }

    /// A token that was good is refused: its next request pays by address again, as this one does.
    async fn forget_refused(&self, parts: &Parts, sender: &Sender, refusal: Refusal) -> Refusal {
        if !matches!(refusal, Refusal::Unauthenticated { .. }) {
            return refusal;
        }
        self.requests.forget(sender);
        self.charge_address(parts).await.err().unwrap_or(refusal)
    }

    async fn admit_message(
        &self,
        context: &CallContext,
        endpoint: &Endpoint,
        parts: &mut Parts,
        token: Option<HeaderValue>,
        body: Body,
    ) -> Result<(Admission, Option<Message>), Refused> {
        let refused = |refusal| (Value::Null, refusal);
        let authenticated = self.authenticate(context, endpoint, parts, token).await;
        let (token, sender, principal) = match authenticated {
            Ok(authenticated) => authenticated,
            Err(refusal) => {
                if !discard(body).await {
                    parts.extensions.insert(Unread);
                }
                return Err(refused(refusal));
            }
        };
        // Read before anything is answered: a client that is still sending would lose its connection.
        let read = self.bodies.read(principal, body).await;
        if read.is_err() {
            parts.extensions.insert(Unread);
        }
        let begun = self.requests.acquire(&sender, address(&parts.extensions)).await;
        let in_progress = begun.map_err(|_| refused(Refusal::Overloaded))?;
        let limits = self.bodies.params_limits();
        let read = read.and_then(|(body, mut permit)| {
            let accepts = check_headers(parts)?;
            Ok((Message::parse(&body, limits, &mut permit)?, permit, accepts))
        });
        let (message, permit, accepts) = match read {
            Ok(read) => read,
            Err(wrong) => {
                return Err(refused(
                    self.count_refused(context, endpoint, parts, &token, wrong).await,
                ));
            }
        };
        if message.kind == Kind::Request {
            self.answers.admit(principal).await.map_err(|refusal| (message.id.clone(), refusal))?;
        }

        let span = span(&message, context, parts);
        let admitting =
            plan::make(self, context, endpoint, &token, &message).instrument(span.clone());
        let made = match admitting.await {
            Ok((plan, grant)) => {
                let counted = self.count(parts, &grant.principal, plan.tool()).await;
                counted.map(|()| (plan, grant))
            }
            Err(refusal @ Refusal::Unauthenticated { .. }) => {
                Err(self.forget_refused(parts, &sender, refusal).await)
            }
            Err(refusal) if self.limits.is_empty() => Err(refusal),
            Err(refusal) => {
                Err(self.count_refused(context, endpoint, parts, &token, refusal).await)
            }
        };
        let (plan, grant) = made.map_err(|refusal| {
            span.record("error.type", refusal.word());
            (message.id.clone(), refusal)
        })?;
        self.check(endpoint).map_err(|refusal| (message.id.clone(), refusal))?;
        let admission = Admission {
            method: message.known_method(),
            context: context.clone(),
            grant,
            again: Reauthorizer::new(&self.authorizer, context, token, endpoint.resource()),
            _in_progress: Some((in_progress, permit)).filter(|_| !matches!(plan, Plan::Watch(_))),
            plan,
            accepts,
            budget: self.answers.of(principal),
            span,
        };
        Ok((admission, Some(message)))
    }
}

/// The span of one MCP request, by OpenTelemetry's MCP conventions. It continues the trace of `_meta`, or
/// else that of the HTTP headers (SEP-414).
fn span(message: &Message, context: &CallContext, parts: &Parts) -> Span {
    let headers = &parts.headers;
    let caller_request_id = parts.extensions.get::<CallerRequestId>();
    let method = message.method.as_str();
    let span = tracing::info_span!(
        "mcp",
        otel.name = message.span_name(),
        otel.kind = "server",
        otel.status_code = Empty,
        mcp.method.name = method,
        mcp.protocol.version = headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok()).map(cut),
        gen_ai.tool.name = message.tool_name().map(cut),
        jsonrpc.request.id = cut(&message.id.to_string()),
        error.type = Empty,
        drawbridge.cache = Empty,
        request_id = %context.request_id,
        caller_request_id = caller_request_id.map(CallerRequestId::as_str),
        trace_id = Empty,
    );
    if message.has_trace() {
        trace::continue_from(&span, message);
    } else {
        trace::continue_from(&span, &trace::Headers(headers));
    }
    span
}
