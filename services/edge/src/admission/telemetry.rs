//! Spans and metrics of MCP requests.

use std::time::Duration;

use drawbridge_runtime::{CallerRequestId, trace};
use drawbridge_transport::CallContext;
use http::request::Parts;
use tracing::{Span, field::Empty};

use crate::{
    admitted::{Message, truncate},
    metrics::OPERATION_DURATION,
};

/// The span of one MCP request (OpenTelemetry's semantic conventions for MCP). It continues the
/// trace of `_meta` or, without one, that of the HTTP headers (SEP-414).
pub(super) fn request_span(message: &Message, context: &CallContext, parts: &Parts) -> Span {
    let headers = &parts.headers;
    let caller_request_id = parts.extensions.get::<CallerRequestId>();
    let method = message.method.as_str();
    let protocol_version = headers.get("mcp-protocol-version");
    let protocol_version = protocol_version.and_then(|value| value.to_str().ok());
    let span = tracing::info_span!(
        "mcp",
        otel.name = message.span_name(),
        otel.kind = "server",
        otel.status_code = Empty,
        mcp.method.name = method,
        mcp.protocol.version = protocol_version.map(truncate),
        gen_ai.tool.name = message.tool_name().map(truncate),
        jsonrpc.request.id = truncate(&message.id.to_string()),
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

/// Records the duration of an operation up to its response. The labels are existing methods and
/// tools.
pub(super) fn record_duration(method: &'static str, tool: Option<String>, elapsed: Duration) {
    let tool = tool.unwrap_or_default();
    OPERATION_DURATION.with([method.into(), tool.into()]).record(elapsed);
}
