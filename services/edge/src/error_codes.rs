//! The error codes that clients meet. The reference page is generated from these tables.

use http::StatusCode;

/// A JSON-RPC error code.
#[derive(Clone, Copy, Debug)]
pub struct JsonRpcCode {
    /// The code.
    pub code: i32,
    /// Its meaning for a client.
    pub meaning: &'static str,
}

/// Why the edge refuses a request before it calls anything.
#[derive(Clone, Copy, Debug)]
pub struct RefusalReason {
    /// The word for it: in `data.reason` of the error, the log and the metric.
    pub reason: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// The JSON-RPC code.
    pub code: i32,
    /// Its meaning for a client.
    pub meaning: &'static str,
}

macro_rules! json_rpc_codes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $code:literal;)+) => {
        $($(#[doc = $meaning])+ pub(crate) const $name: i32 = $code;)+

        /// The JSON-RPC codes that clients meet.
        pub const JSON_RPC_CODES: &[JsonRpcCode] = &[$(
            JsonRpcCode { code: $name, meaning: concat!($($meaning),+).trim_ascii_start() }
        ),+];
    };
}

macro_rules! refusal_reasons {
    ($(
        $(#[doc = $meaning:literal])+
        $name:ident = $reason:literal, $status:ident, $code:ident;
    )+) => {
        $($(#[doc = $meaning])+ pub(crate) const $name: RefusalReason = RefusalReason {
            reason: $reason,
            status: StatusCode::$status,
            code: $code,
            meaning: concat!($($meaning),+).trim_ascii_start(),
        };)+

        /// All reasons.
        pub const REFUSAL_REASONS: &[RefusalReason] = &[$($name),+];
    };
}

json_rpc_codes! {
    /// The body is not JSON (JSON-RPC 2.0 section 5.1).
    PARSE_ERROR = -32700;
    /// The request is not valid (JSON-RPC 2.0 section 5.1).
    INVALID_REQUEST = -32600;
    /// The method does not exist (JSON-RPC 2.0 section 5.1).
    METHOD_NOT_FOUND = -32601;
    /// The parameters are not valid; or the tool or prompt, and in 2026-07-28 the resource, does
    /// not exist for this caller.
    INVALID_PARAMS = -32602;
    /// The tool service or a transformation failed.
    INTERNAL_ERROR = -32603;
    /// The session does not exist or has ended: the client initializes again.
    NO_SESSION = -32001;
    /// The resource does not exist for this caller.
    RESOURCE_NOT_FOUND = -32002;
    /// 2026-07-28: a header is missing or contradicts the body.
    HEADER_MISMATCH = -32020;
    /// 2026-07-28: the request needs a capability that the client does not declare.
    MISSING_CAPABILITY = -32021;
    /// 2026-07-28: the edge does not speak this revision of MCP.
    UNSUPPORTED_VERSION = -32022;
    /// The edge's own: no access token, or one that is not accepted.
    UNAUTHENTICATED = -32041;
    /// 2025-11-25: the caller must open a page first.
    URL_ELICITATION_REQUIRED = -32042;
    /// The edge's own: a policy, a scope, the Host or the Origin does not permit the request.
    FORBIDDEN = -32043;
    /// The edge's own: a rate limit is reached; `data` names it, and when to retry.
    LIMITED = -32049;
    /// The edge's own: auth, a tool service or Redis is unavailable, or the edge is overloaded;
    /// `data` says when to retry.
    UNAVAILABLE = -32053;
}

refusal_reasons! {
    /// The request has no access token, or one that is not accepted.
    NO_TOKEN = "unauthenticated", UNAUTHORIZED, UNAUTHENTICATED;
    /// The token lacks a scope, which `data.scopes` names.
    SCOPE = "insufficient_scope", FORBIDDEN, FORBIDDEN;
    /// Policy denies the operation.
    POLICY = "policy_denied", FORBIDDEN, FORBIDDEN;
    /// Auth is unavailable, so nothing is allowed.
    AUTH_UNAVAILABLE = "auth_unavailable", SERVICE_UNAVAILABLE, UNAVAILABLE;
    /// The token cannot be verified, because its issuer is unavailable.
    UNVERIFIED = "unverified", SERVICE_UNAVAILABLE, UNAVAILABLE;
    /// The Host is not one of this server's names.
    HOST = "host", FORBIDDEN, FORBIDDEN;
    /// The Origin is not an allowed one.
    ORIGIN = "origin", FORBIDDEN, FORBIDDEN;
    /// The body exceeds the maximum.
    TOO_LARGE = "too_large", PAYLOAD_TOO_LARGE, INVALID_REQUEST;
    /// The body could not be read.
    BODY = "body", BAD_REQUEST, INVALID_REQUEST;
    /// The body arrived too slowly.
    SLOW = "slow", REQUEST_TIMEOUT, INVALID_REQUEST;
    /// A header is repeated, or has a value that only an attack would send.
    HEADERS = "headers", BAD_REQUEST, INVALID_REQUEST;
    /// The body has a Content-Encoding.
    CONTENT_ENCODING = "content_encoding", UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST;
    /// The Content-Type is not JSON.
    CONTENT_TYPE = "content_type", UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST;
    /// The client accepts neither JSON nor an event stream.
    NOT_ACCEPTABLE = "not_acceptable", NOT_ACCEPTABLE, INVALID_REQUEST;
    /// The body is not valid JSON.
    PARSE = "parse", BAD_REQUEST, PARSE_ERROR;
    /// The body is not a JSON-RPC 2.0 message.
    INVALID = "invalid_request", BAD_REQUEST, INVALID_REQUEST;
    /// The parameters of the method are not valid.
    PARAMS = "invalid_params", BAD_REQUEST, INVALID_PARAMS;
    /// No service or virtual server has the name in the path.
    NO_ENDPOINT = "no_endpoint", NOT_FOUND, INVALID_REQUEST;
    /// The session does not exist, or belongs to another caller.
    NO_SUCH_SESSION = "no_session", NOT_FOUND, NO_SESSION;
    /// Redis, which knows the sessions, is unavailable.
    SESSIONS_UNAVAILABLE = "sessions_unavailable", SERVICE_UNAVAILABLE, UNAVAILABLE;
    /// The caller has the most streams that one principal may have open.
    TOO_MANY_STREAMS = "too_many_streams", TOO_MANY_REQUESTS, UNAVAILABLE;
    /// The caller has the most sessions that one principal may have open.
    TOO_MANY_SESSIONS = "too_many_sessions", TOO_MANY_REQUESTS, UNAVAILABLE;
    /// This replica has the most streams that it may have open.
    STREAMS_FULL = "streams_full", SERVICE_UNAVAILABLE, UNAVAILABLE;
    /// This replica has the most sessions that it may have open.
    SESSIONS_FULL = "sessions_full", SERVICE_UNAVAILABLE, UNAVAILABLE;
    /// The endpoint does not support the HTTP method.
    METHOD = "method_not_allowed", METHOD_NOT_ALLOWED, INVALID_REQUEST;
    /// The stream that the client wants to resume does not exist.
    EVENT_ID = "event_id", BAD_REQUEST, INVALID_REQUEST;
    /// A rate limit is exceeded.
    RATE_LIMITED = "rate_limited", TOO_MANY_REQUESTS, LIMITED;
    /// A rate limit rejects all requests while Redis is unavailable.
    LIMIT_CLOSED = "limit_closed", SERVICE_UNAVAILABLE, UNAVAILABLE;
    /// This replica is overloaded.
    OVERLOADED = "overloaded", SERVICE_UNAVAILABLE, UNAVAILABLE;
    /// The caller has too many unread bytes of earlier responses.
    RESPONSES_UNREAD = "answers_unread", SERVICE_UNAVAILABLE, UNAVAILABLE;
    /// The audit log is required and cannot be written. The tool was not called.
    AUDIT_UNAVAILABLE = "audit_unavailable", SERVICE_UNAVAILABLE, UNAVAILABLE;
}
