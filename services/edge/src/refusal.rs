//! The only mapping of refusals to HTTP and JSON-RPC: status, headers, code, message.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::RequestId;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tracing::Span;

use crate::{
    error_codes::{self, RefusalReason},
    metadata::Endpoint,
    metrics::REFUSALS,
    traffic::limits::{LimitError, RateLimitStatus},
};

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Seconds after which a client may retry when auth or Redis is unavailable, or the edge is
/// overloaded.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Why the edge rejects a request.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// The caller is not authenticated. The description is absent when the request had no token.
    Unauthenticated { description: Option<String> },
    /// The token lacks a scope.
    InsufficientScope { scopes: Vec<String>, principal: Arc<auth::Principal> },
    /// Policy denies the operation. INVARIANT: the caller does not learn that a hidden item exists.
    Denied { item: String, is_hidden: bool, denied: Box<auth::Denied> },
    /// Auth is unavailable, so nothing is allowed.
    AuthUnavailable,
    /// The token cannot be verified, because its issuer is unavailable. The caller is not
    /// authenticated.
    Unverified,
    /// The Host is not one of this server's names.
    Host,
    /// The Origin is not an allowed one.
    Origin,
    /// The body exceeds the maximum.
    TooLarge { bytes_max: usize },
    /// The body could not be read.
    BodyUnreadable,
    /// The body arrived too slowly.
    BodySlow,
    /// A header is repeated, or has a value that only an attack would send.
    Headers(&'static str),
    /// The body has a Content-Encoding.
    ContentEncoding,
    /// The Content-Type is not JSON.
    ContentType,
    /// The client accepts neither JSON nor an event stream.
    NotAcceptable,
    /// The body is not valid JSON.
    Parse(String),
    /// The body is not a JSON-RPC 2.0 message.
    Invalid(String),
    /// The parameters of the method are invalid.
    Params(String),
    /// No service or virtual server has this name.
    NoEndpoint,
    /// The session does not exist, or belongs to another caller.
    NoSession,
    /// Redis, which knows the sessions, is unavailable.
    SessionsUnavailable,
    /// The caller has the most of these that one principal may have open.
    TooMany { what: &'static str, max: usize },
    /// This replica has the most of these that it may have open.
    Full { what: &'static str },
    /// The endpoint does not support the HTTP method.
    Method,
    /// The stream that the client wants to resume does not exist.
    EventId,
    /// A rate limit is exceeded.
    Limited(RateLimitStatus),
    /// A rate limit rejects all requests while Redis is unavailable.
    LimitClosed { limit: String },
    /// This replica is overloaded.
    Overloaded,
    /// The caller has too many unread bytes of earlier responses.
    ResponsesUnread,
    /// The audit log is required and cannot be written.
    AuditUnavailable,
}

impl From<LimitError> for Refusal {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Exceeded(status) => Self::Limited(status),
            LimitError::Closed(limit) => Self::LimitClosed { limit },
        }
    }
}

impl Refusal {
    /// Its row in the table of reasons.
    fn row(&self) -> RefusalReason {
        match self {
            Self::Unauthenticated { .. } => error_codes::NO_TOKEN,
            Self::InsufficientScope { .. } => error_codes::SCOPE,
            Self::Denied { .. } => error_codes::POLICY,
            Self::AuthUnavailable => error_codes::AUTH_UNAVAILABLE,
            Self::Unverified => error_codes::UNVERIFIED,
            Self::Host => error_codes::HOST,
            Self::Origin => error_codes::ORIGIN,
            Self::TooLarge { .. } => error_codes::TOO_LARGE,
            Self::BodyUnreadable => error_codes::BODY,
            Self::BodySlow => error_codes::SLOW,
            Self::Headers(_) => error_codes::HEADERS,
            Self::ContentEncoding => error_codes::CONTENT_ENCODING,
            Self::ContentType => error_codes::CONTENT_TYPE,
            Self::NotAcceptable => error_codes::NOT_ACCEPTABLE,
            Self::Parse(_) => error_codes::PARSE,
            Self::Invalid(_) => error_codes::INVALID,
            Self::Params(_) => error_codes::PARAMS,
            Self::NoEndpoint => error_codes::NO_ENDPOINT,
            // It makes the client open another session (MCP, Streamable HTTP).
            Self::NoSession => error_codes::NO_SUCH_SESSION,
            Self::SessionsUnavailable => error_codes::SESSIONS_UNAVAILABLE,
            Self::TooMany { what: "streams", .. } => error_codes::TOO_MANY_STREAMS,
            Self::TooMany { .. } => error_codes::TOO_MANY_SESSIONS,
            Self::Full { what: "streams" } => error_codes::STREAMS_FULL,
            Self::Full { .. } => error_codes::SESSIONS_FULL,
            Self::Method => error_codes::METHOD,
            Self::EventId => error_codes::EVENT_ID,
            Self::Limited(_) => error_codes::RATE_LIMITED,
            Self::LimitClosed { .. } => error_codes::LIMIT_CLOSED,
            Self::Overloaded => error_codes::OVERLOADED,
            Self::ResponsesUnread => error_codes::RESPONSES_UNREAD,
            Self::AuditUnavailable => error_codes::AUDIT_UNAVAILABLE,
        }
    }

    /// The word for logs, metrics and clients.
    pub(crate) fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// The message for the caller. It is truncated because it may contain text of the caller.
    fn message(&self) -> String {
        let mut message = self.text();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message
    }

    fn text(&self) -> String {
        match self {
            // Older MCP inspectors search for this word.
            Self::Unauthenticated { description: None } => {
                "Unauthorized: an access token is required".to_owned()
            }
            Self::Unauthenticated { description: Some(description) } => {
                format!("Unauthorized: {description}")
            }
            Self::InsufficientScope { scopes, .. } => {
                format!("the access token must have the scopes: {}", scopes.join(" "))
            }
            Self::Denied { item, denied, .. } => {
                format!("denied by policy: {item}: {}", denied.reason)
            }
            Self::AuthUnavailable => "the authorization service is unavailable; retry".to_owned(),
            Self::Unverified => "the access token cannot be verified now; retry".to_owned(),
            Self::Host => "the Host header names another server".to_owned(),
            Self::Origin => "the origin of the page is not allowed".to_owned(),
            Self::TooLarge { bytes_max } => format!("the body is larger than {bytes_max} bytes"),
            Self::BodyUnreadable => "the request body could not be read".to_owned(),
            Self::BodySlow => "the request body arrived too slowly".to_owned(),
            Self::Headers(what) => (*what).to_owned(),
            Self::ContentEncoding => "the body must have no Content-Encoding".to_owned(),
            Self::ContentType => "the Content-Type must be application/json".to_owned(),
            Self::NotAcceptable => {
                "the client must accept application/json or text/event-stream".to_owned()
            }
            Self::Parse(what) => format!("the body is not JSON: {what}"),
            Self::Invalid(what) => format!("the body is not a JSON-RPC 2.0 message: {what}"),
            Self::Params(what) => format!("invalid parameters: {what}"),
            Self::NoEndpoint => "no service has this name".to_owned(),
            Self::NoSession => "the session does not exist; initialize again".to_owned(),
            Self::SessionsUnavailable => "the session store is unavailable; retry".to_owned(),
            Self::TooMany { what, max } => {
                format!("you have {max} open {what}, which is the maximum; close one")
            }
            Self::Full { what } => {
                format!("the server has reached its maximum of open {what}; retry")
            }
            Self::Method => {
                "only POST, and GET and DELETE with a session, are supported".to_owned()
            }
            Self::EventId => {
                "the Last-Event-ID names no event of this session that can be resumed".to_owned()
            }
            Self::Limited(status) => {
                let (limit, seconds) = (status.limit(), status.seconds());
                format!("the rate limit {limit} is exceeded; retry in {seconds} s")
            }
            Self::LimitClosed { limit } => {
                format!("the rate limit {limit} cannot be checked now; retry")
            }
            Self::Overloaded => "the server is overloaded; retry".to_owned(),
            Self::ResponsesUnread => {
                "too much of earlier responses is unread; read it, then retry: nothing was done"
                    .to_owned()
            }
            Self::AuditUnavailable => {
                "the call cannot be recorded in the audit log now; retry: nothing was done"
                    .to_owned()
            }
        }
    }

    fn data(&self, request_id: &RequestId) -> Value {
        let mut data = json!({ "requestId": request_id.as_str(), "reason": self.reason() });
        match self {
            Self::InsufficientScope { scopes, .. } => data["scopes"] = json!(scopes),
            Self::Limited(status) => {
                data["limit"] = json!(status.limit());
                data["remaining"] = json!(status.remaining);
                data["retryAfterMs"] = json!(status.millis());
            }
            _ if self.retry_after_seconds().is_some() => {
                data["retryAfterMs"] = json!(RETRY_AFTER_SECONDS * 1000);
            }
            _ => {}
        }
        data
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Limited(status) => Some(status.seconds()),
            _ if self.row().status == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER_SECONDS),
            _ => None,
        }
    }

    /// Records the JSON-RPC code in the span of the call.
    pub(crate) fn record_code(&self, span: &Span) {
        span.record("rpc.response.status_code", self.row().code.to_string());
    }

    /// Counts and logs the refusal.
    pub(crate) fn record(&self, request_id: &RequestId) {
        let (reason, message) = (self.reason(), self.message());
        if matches!(self, Self::Overloaded) {
            // The access log contains it too, and logging adds load.
            tracing::debug!(%request_id, reason, detail = message, "refused");
        } else {
            tracing::info!(%request_id, reason, detail = message, "refused");
        }
        REFUSALS.with([reason.into()]).increment(1);
    }

    /// The response to the message `id`, or to no message if it is null.
    pub(crate) fn into_response(
        self,
        id: Value,
        request_id: &RequestId,
        endpoint: &Endpoint,
    ) -> Response {
        self.record(request_id);
        let (row, message) = (self.row(), self.message());
        let error = json!({
            "jsonrpc": "2.0",
            "id": id,
            "error": { "code": row.code, "message": message, "data": self.data(request_id) },
        });
        let mut response = (row.status, axum::Json(error)).into_response();
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge(endpoint) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Self::Limited(status) = &self {
            status.write_headers(headers);
        }
        headers.extend(
            self.retry_after_seconds().map(|seconds| (header::RETRY_AFTER, seconds.into())),
        );
        if matches!(self, Self::Method) {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
        }
        if matches!(self, Self::ContentEncoding) {
            // RFC 9110 section 15.5.16.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }

    /// The challenge of RFC 6750 section 3 with RFC 9728's `resource_metadata`.
    fn challenge(&self, endpoint: &Endpoint) -> Option<HeaderValue> {
        let (error, scopes) = match self {
            Self::Unauthenticated { description: None } => (String::new(), endpoint.scopes()),
            Self::Unauthenticated { description: Some(description) } => {
                let description = quotable(description);
                let error =
                    format!(r#"error="invalid_token", error_description="{description}", "#);
                (error, endpoint.scopes())
            }
            Self::InsufficientScope { scopes, .. } => {
                (r#"error="insufficient_scope", "#.to_owned(), scopes.as_slice())
            }
            _ => return None,
        };
        let scope = match scopes {
            [] => String::new(),
            scopes => format!(r#", scope="{}""#, scopes.join(" ")),
        };
        let metadata = endpoint.metadata_url();
        HeaderValue::from_str(&format!(r#"Bearer {error}resource_metadata="{metadata}"{scope}"#))
            .ok()
    }
}

/// A truncated text whose characters a quoted string of a header permits (RFC 6750 section 3:
/// printable ASCII, neither quotation mark nor backslash).
fn quotable(text: &str) -> String {
    let allowed = |letter: char| match letter {
        '"' | '\\' => '\'',
        ' '..='~' => letter,
        _ => '?',
    };
    text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)].chars().map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_description_becomes_a_valid_header_value() {
        assert_eq!(quotable("a \"b\\c\"\r\nd é"), "a 'b'c'??d ?");
        assert_eq!(quotable(&"é".repeat(MESSAGE_BYTES_MAX)).len(), MESSAGE_BYTES_MAX / 2);
    }
}
