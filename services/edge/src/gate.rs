//! The gate: reads a request once, says what it asks for, asks auth whether it may, and passes on what is
//! left to be done.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use drawbridge_sdk::{BodyTimeout, CallContext, RequestId, trace};
use http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts};
use secrecy::SecretString;
use serde_json::Value;
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    authorizer::{Authorizer, Caller, Reauthorizer},
    catalog::Catalogs,
    limits::{Limits, Standing, address},
    mcp::Server,
    metadata::{Endpoint, ProtectedResource},
    overload::{InProgress, Requests},
    refusal::Refusal,
};

pub(crate) use self::{
    message::{Kind, Message},
    plan::{Call, Plan, Watch},
};

mod count;
mod message;
mod plan;

/// The longest that one request may take, whatever its tool says.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
/// How much of a body is read from whoever shows no token, in bytes.
const ANONYMOUS_BYTES_MAX: usize = 64 * 1024;
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

pub(crate) struct Gate {
    pub(crate) authorizer: Authorizer,
    pub(crate) server: Server,
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) resource: Arc<ProtectedResource>,
    pub(crate) body_bytes_max: usize,
}

/// A request that was admitted, and what is left to do for it.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The method, or `other`.
    pub(crate) method: &'static str,
    pub(crate) context: CallContext,
    pub(crate) caller: Caller,
    /// Asks auth again about what goes on later.
    pub(crate) again: Reauthorizer,
    pub(crate) plan: Plan,
    pub(crate) accepts: Accepts,
    pub(crate) span: Span,
    /// Held while the request is worked on. Whoever only listens is not in progress.
    _in_progress: Option<InProgress>,
}

/// What a client takes for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// One JSON message alone.
    Json,
    /// An event stream alone.
    Stream,
    Both,
}

impl Accepts {
    /// Whether the client can be told something before the answer.
    pub(crate) fn streams(self) -> bool {
        self != Self::Json
    }

    /// After how long without an answer a stream is opened. None: never.
    pub(crate) fn quiet(self, usual: Duration) -> Option<Duration> {
        match self {
            Self::Json => None,
            Self::Stream => Some(Duration::ZERO),
            Self::Both => Some(usual),
        }
    }
}

/// Lets a request pass, or refuses it.
pub(crate) async fn pass(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let request_id = request.extensions().get().cloned().unwrap_or_else(RequestId::generate);
    let context = CallContext::new(request_id, REQUEST_TIMEOUT);
    let endpoint = gate.endpoint(request.uri().path());
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    // Taken out, so that nothing behind the gate can log it or send it on.
    let token = parts.headers.remove(header::AUTHORIZATION);
    let admitted = match parts.method {
        // Boxed, so that what waits for the answer later is small.
        Method::POST => Box::pin(gate.admit_message(&context, &endpoint, &mut parts, token, body)).await,
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
            let refusal = gate.count_stranger(&parts, refusal).await;
            let mut response = refusal.into_response(id, &context.request_id, &endpoint);
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
    /// The endpoint at a path: the one for all services, or below it the one for the service or virtual server that it
    /// names.
    fn endpoint(&self, path: &str) -> Endpoint {
        let below = path.strip_prefix(self.resource.path()).unwrap_or_default().trim_matches('/');
        let namespace = Some(below).filter(|below| !below.is_empty()).map(ToOwned::to_owned);
        Endpoint { resource: Arc::clone(&self.resource), namespace }
    }

    /// Refuses an endpoint that is not there. Only who is known is told.
    fn check(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        match &endpoint.namespace {
            Some(namespace) if !self.catalogs.load().has_endpoint(namespace) => Err(Refusal::NoEndpoint),
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
        let answering = self.server.answer(admission, message, &parts.headers).instrument(span.clone());
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
        let token = bearer(token.as_ref()).map_err(refused)?;
        let allowed =
            self.authorizer.connect(context, &token, &endpoint.resource()).await.map_err(refused)?;
        self.count(parts, &allowed.principal, None).await.map_err(refused)?;
        self.check(endpoint).map_err(refused)?;
        Ok(Admission {
            method: message::OTHER,
            context: context.clone(),
            caller: allowed.caller(),
            again: Reauthorizer::new(&self.authorizer, context, token, endpoint.resource()),
            plan: Plan::Connect,
            // A client that says nothing takes a stream.
            accepts: accept(&parts.headers).unwrap_or(Accepts::Json),
            span: Span::none(),
            _in_progress: None,
        })
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
        let token = bearer(token.as_ref());
        // Read before anything is answered: a client that is still sending would lose its connection.
        let bytes_max = if token.is_ok() { self.body_bytes_max } else { ANONYMOUS_BYTES_MAX };
        let body = to_bytes(body, bytes_max).await.map_err(|error| body_error(&error, bytes_max));
        if body.is_err() {
            parts.extensions.insert(Unread);
        }
        // Whoever shows no token is sent to fetch one, whatever else is wrong.
        let token = token.map_err(refused)?;
        let begun = self.requests.begin(&token, address(&parts.extensions)).await;
        let in_progress = begun.map_err(|_| refused(Refusal::Overloaded))?;
        let (message, accepts) = match body.and_then(|body| read(parts, &body)) {
            Ok(read) => read,
            Err(wrong) => {
                return Err(refused(self.count_refused(context, endpoint, parts, &token, wrong).await));
            }
        };

        let span = span(&message, context, &parts.headers);
        let admitting = plan::make(self, context, endpoint, &token, &message).instrument(span.clone());
        let made = match admitting.await {
            Ok((plan, caller)) => {
                self.requests.know(&in_progress);
                let counted = self.count(parts, &caller.principal, plan.tool()).await;
                counted.map(|()| (plan, caller))
            }
            Err(refusal) if self.limits.is_empty() => Err(refusal),
            Err(refusal) => Err(self.count_refused(context, endpoint, parts, &token, refusal).await),
        };
        let (plan, caller) = made.map_err(|refusal| {
            span.record("error.type", refusal.word());
            (message.id.clone(), refusal)
        })?;
        self.check(endpoint).map_err(|refusal| (message.id.clone(), refusal))?;
        let admission = Admission {
            method: message.known_method(),
            context: context.clone(),
            caller,
            again: Reauthorizer::new(&self.authorizer, context, token, endpoint.resource()),
            _in_progress: Some(in_progress).filter(|_| !matches!(plan, Plan::Watch(_))),
            plan,
            accepts,
            span,
        };
        Ok((admission, Some(message)))
    }
}

/// Reads a message, and says what its sender takes for an answer.
fn read(parts: &Parts, body: &Bytes) -> Result<(Message, Accepts), Refusal> {
    check_content_type(&parts.headers)?;
    let accepts = match parts.headers.contains_key(header::ACCEPT) {
        true => accept(&parts.headers)?,
        false => Accepts::Json,
    };
    Ok((Message::parse(body)?, accepts))
}

fn body_error(error: &axum::Error, bytes_max: usize) -> Refusal {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return Refusal::TooLarge { bytes_max };
        }
        if error.is::<BodyTimeout>() {
            return Refusal::Slow;
        }
        source = error.source();
    }
    Refusal::Body
}

/// The token of a `Bearer` header (RFC 6750 section 2.1).
fn bearer(header: Option<&HeaderValue>) -> Result<SecretString, Refusal> {
    let header = header.ok_or(Refusal::Unauthenticated { description: None })?;
    let token = header.to_str().ok().and_then(|header| {
        let (scheme, token) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| SecretString::from(token.trim()))
    });
    token.ok_or(Refusal::Unauthenticated {
        description: Some("the Authorization header holds no bearer token".to_owned()),
    })
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let essence = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    match essence {
        Some(essence) if essence.trim().eq_ignore_ascii_case(JSON) => Ok(()),
        _ => Err(Refusal::ContentType),
    }
}

/// What the client takes for an answer. One that says nothing takes all.
fn accept(headers: &HeaderMap) -> Result<Accepts, Refusal> {
    let text: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = text.join(",").to_ascii_lowercase();
    let takes = |kinds: &[&str]| {
        text.split(',').filter_map(|range| range.split(';').next()).any(|range| kinds.contains(&range.trim()))
    };
    let streams = text.is_empty() || takes(&[EVENT_STREAM, "text/*", "*/*"]);
    let json = text.is_empty() || takes(&[JSON, "application/*", "*/*"]);
    match (json, streams) {
        (true, true) => Ok(Accepts::Both),
        (true, false) => Ok(Accepts::Json),
        (false, true) => Ok(Accepts::Stream),
        (false, false) => Err(Refusal::NotAcceptable),
    }
}

/// The span of one MCP request, by OpenTelemetry's MCP conventions. It continues the trace of `_meta`, or
/// else that of the HTTP headers (SEP-414).
fn span(message: &Message, context: &CallContext, headers: &HeaderMap) -> Span {
    let method = message.method.as_str();
    let span = tracing::info_span!(
        "mcp",
        otel.name = message.span_name(),
        otel.kind = "server",
        otel.status_code = Empty,
        mcp.method.name = method,
        mcp.protocol.version = headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok()),
        gen_ai.tool.name = message.tool_name(),
        jsonrpc.request.id = %message.id,
        error.type = Empty,
        drawbridge.cache = Empty,
        request_id = %context.request_id,
        trace_id = Empty,
    );
    if message.has_trace() {
        trace::continue_from(&span, message);
    } else {
        trace::continue_from(&span, &trace::Headers(headers));
    }
    span
}
