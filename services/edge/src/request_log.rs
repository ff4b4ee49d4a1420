//! The log line and the HTTP span of one request.
//!
//! The line is written once, when the response has been sent and the call has ended: a call in a
//! session may outlive its connection, and a stream outlives the head of its response.

use std::{
    borrow::Cow,
    fmt,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::body::{Body, HttpBody as _};
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::{CallerRequestId, RequestId, trace};
use drawbridge_transport::{LoggedCaller, log_call};
use http::{HeaderMap, StatusCode, Version};
use http_body_util::BodyExt as _;
use tracing::{Span, field::Empty};
use url::Url;

use crate::truncate::truncate;

/// What the line and the span have of a request.
pub(crate) struct RequestLog {
    pub(crate) request_id: RequestId,
    pub(crate) caller_request_id: Option<CallerRequestId>,
    pub(crate) client_address: IpAddr,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) started: Instant,
    /// The span of the HTTP request, which ends with its response.
    pub(crate) span: Span,
    status: OnceLock<StatusCode>,
    call: OnceLock<CallSummary>,
    is_written: AtomicBool,
}

/// How a call ended, for the line.
#[derive(Debug)]
pub(crate) struct CallSummary {
    pub(crate) principal: Option<Arc<auth::Principal>>,
    /// The MCP method, or `other`.
    pub(crate) method: String,
    /// The name in the catalog. Empty: the call was about no item.
    pub(crate) item: String,
    pub(crate) outcome: &'static str,
    /// Empty: none is needed.
    pub(crate) code: Cow<'static, str>,
    /// Of the span of the call, if that belongs to another trace than the HTTP request's.
    pub(crate) trace_id: Option<String>,
}

/// Where clients reach the edge.
#[derive(Clone, Debug)]
pub(crate) struct ServerAddress {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl ServerAddress {
    pub(crate) fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default().to_owned();
        Self { scheme: url.scheme().to_owned(), host, port: url.port_or_known_default() }
    }
}

/// The span of an HTTP request, by OpenTelemetry's conventions. It continues the trace of the
/// headers. `route` is its template, if it is known already.
pub(crate) fn http_span(
    log: (&RequestId, Option<&CallerRequestId>, IpAddr),
    (method, path, version): (&str, &str, Version),
    route: Option<&str>,
    server: &ServerAddress,
    headers: &HeaderMap,
) -> Span {
    let (request_id, caller_request_id, client_address) = log;
    let known = known_method(method);
    let span = tracing::info_span!(
        "http",
        otel.name = route.map_or_else(|| known.to_owned(), |route| format!("{known} {route}")),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = known,
        http.route = route,
        http.response.status_code = Empty,
        url.scheme = server.scheme,
        url.path = truncate(path),
        server.address = server.host,
        server.port = server.port,
        client.address = %client_address,
        network.protocol.name = "http",
        network.protocol.version = if version == Version::HTTP_2 { "2" } else { "1.1" },
        error.type = Empty,
        request_id = %request_id,
        caller_request_id = caller_request_id.map(CallerRequestId::as_str),
        trace_id = Empty,
    );
    trace::continue_from(&span, &trace::Headers(headers));
    span
}

/// The method, or `_OTHER`: a caller cannot invent span names.
fn known_method(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "HEAD" => "HEAD",
        _ => "_OTHER",
    }
}

impl RequestLog {
    pub(crate) fn new(
        request_id: RequestId,
        caller_request_id: Option<CallerRequestId>,
        client_address: IpAddr,
        method: &str,
        path: &str,
        span: Span,
    ) -> Self {
        Self {
            request_id,
            caller_request_id,
            client_address,
            method: truncate(method).to_owned(),
            path: truncate(path).to_owned(),
            started: Instant::now(),
            span,
            status: OnceLock::new(),
            call: OnceLock::new(),
            is_written: AtomicBool::new(false),
        }
    }

    /// The call has ended. The first summary counts.
    pub(crate) fn call_ended(&self, summary: CallSummary) {
        let _ = self.call.set(summary);
    }

    /// The head of the response is known. The line of a response without a stream is written now,
    /// so that it is in the log before the client has the response.
    pub(crate) fn responded(self: &Arc<Self>, status: StatusCode, body: Body) -> Body {
        let _ = self.status.set(status);
        self.span.record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            self.span.record("error.type", status.as_str()).record("otel.status_code", "ERROR");
        }
        if body.size_hint().exact().is_some() {
            self.write();
            return body;
        }
        let log = Arc::clone(self);
        Body::new(body.map_frame(move |frame| {
            let _until_the_last_frame = &log;
            frame
        }))
    }

    fn write(&self) {
        if self.is_written.swap(true, Ordering::Relaxed) {
            return;
        }
        // Without the query, which may contain a token.
        let call = self.call.get();
        let principal = call.and_then(|call| call.principal.as_deref());
        let caller = match principal {
            Some(principal) => LoggedCaller::new(principal, None),
            None => LoggedCaller::anonymous(),
        };
        let text = |text: fn(&CallSummary) -> &str| call.map(text).filter(|text| !text.is_empty());
        let _entered = self.span.enter();
        log_call!(
            caller,
            trace_id = text(|call| call.trace_id.as_deref().unwrap_or_default()),
            client.address = %self.client_address,
            http.request.method = self.method,
            url.path = self.path,
            http.response.status_code = self.status.get().map(StatusCode::as_u16),
            mcp.method.name = text(|call| &call.method),
            item = text(|call| &call.item),
            outcome = text(|call| call.outcome),
            code = text(|call| &call.code),
            elapsed_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered",
        );
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.write();
    }
}

impl fmt::Debug for RequestLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLog").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}
