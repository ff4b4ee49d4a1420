//! Spans and metrics of MCP requests.

use data_encoding::HEXLOWER;
use drawbridge_runtime::{CallerRequestId, trace};
use drawbridge_transport::CallContext;
use http::{HeaderValue, request::Parts};
use sha2::{Digest as _, Sha256};
use tracing::{Span, field::Empty};

use crate::{admitted::Message, mcp::SESSION_ID, truncate::truncate};

/// The span of one MCP request (OpenTelemetry's semantic conventions for MCP). It continues the
/// trace of `_meta` (SEP-414), linked to the span of the HTTP request, or without one belongs to
/// that span.
pub(super) fn request_span(message: &Message, context: &CallContext, parts: &Parts) -> Span {
    let headers = &parts.headers;
    let caller_request_id = parts.extensions.get::<CallerRequestId>();
    let session = headers.get(SESSION_ID);
    let protocol_version = headers.get("mcp-protocol-version");
    let protocol_version = protocol_version.and_then(|value| value.to_str().ok());
    let protocol_version = protocol_version.or_else(|| message.requested_revision());
    let id = Some(&message.id).filter(|id| !id.is_null()).map(ToString::to_string);
    let span = tracing::info_span!(
        "mcp",
        otel.name = message.span_name(),
        otel.kind = "server",
        otel.status_code = Empty,
        mcp.method.name = truncate(&message.method),
        mcp.protocol.version = protocol_version.map(truncate),
        mcp.session.id = session.map(session_digest),
        gen_ai.operation.name = message.tool_name().map(|_| "execute_tool"),
        gen_ai.tool.name = message.tool_name().map(truncate),
        gen_ai.prompt.name = message.prompt_name().map(truncate),
        network.transport = "tcp",
        network.protocol.name = "http",
        rpc.response.status_code = Empty,
        enduser.pseudo.id = Empty,
        jsonrpc.request.id = id.as_deref().map(truncate),
        error.type = Empty,
        drawbridge.cache = Empty,
        request_id = %context.request_id,
        caller_request_id = caller_request_id.map(CallerRequestId::as_str),
        trace_id = Empty,
    );
    if message.has_trace() {
        let transport = trace::context_of(&Span::current());
        trace::continue_from(&span, message);
        if let Some(transport) = transport {
            trace::link(&span, &transport);
        }
    }
    span
}

/// Names a session in spans. A reader of spans cannot use the session.
fn session_digest(id: &HeaderValue) -> String {
    HEXLOWER.encode(&Sha256::digest(id.as_bytes())[..16])
}
