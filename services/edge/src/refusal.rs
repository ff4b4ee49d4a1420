//! The one place that turns a refusal into HTTP and JSON-RPC: status, headers, code, message.

use axum::response::{IntoResponse, Response};
use drawbridge_sdk::RequestId;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{metadata::Endpoint, traffic::limits::Standing};

/// The JSON-RPC error codes of the edge's own refusals, after the HTTP status that they come with.
const UNAUTHENTICATED: i32 = -32041;
const FORBIDDEN: i32 = -32043;
const LIMITED: i32 = -32049;
const UNAVAILABLE: i32 = -32053;
/// By which clients know that their session is gone.
const NO_SESSION: i32 = -32001;

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Seconds after which a client may try again when auth or Redis gave no answer, or there is too much to do.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Why a request goes no further.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// Nobody is known to be calling. The description is absent when there was no token at all.
    Unauthenticated { description: Option<String> },
    /// The token lacks a scope.
    InsufficientScope { scopes: Vec<String> },
    /// Policy refuses. Of a hidden item the caller must not learn that it exists.
    Denied { item: String, reason: String, is_hidden: bool },
    /// Auth gave no answer, so nothing is allowed.
    AuthUnavailable,
    /// Nobody can say whether the token is good: its issuer cannot be asked. Who shows it is not known.
    Unverified,
    /// The request was sent to a name that is not this server's.
    Host,
    /// The page that sent the request is not one that may.
    Origin,
    /// The body is larger than is taken.
    TooLarge { bytes_max: usize },
    /// The body did not come.
    Body,
    /// The body came too slowly.
    Slow,
    /// A header is given twice, or says what only an attack would.
    Headers(&'static str),
    /// The body is packed.
    ContentEncoding,
    /// The body is not JSON.
    ContentType,
    /// The client takes neither JSON nor an event stream.
    NotAcceptable,
    /// The body does not parse.
    Parse(String),
    /// The body is JSON, but no JSON-RPC 2.0 message.
    Invalid(String),
    /// The method's parameters are not its parameters.
    Params(String),
    /// There is no service of this name.
    NoEndpoint,
    /// The session is not there, or not this caller's.
    NoSession,
    /// Nobody can say now whether there is such a session.
    SessionsAway,
    /// The caller has as many of these as one principal may.
    TooMany { what: &'static str, max: usize },
    /// This replica has as many of these as it may.
    Full { what: &'static str },
    /// The HTTP method has no meaning here.
    Method,
    /// The stream that the client wants to take up again is not there.
    EventId,
    /// A rate limit refuses.
    Limited(Standing),
    /// A rate limit lets nothing pass while Redis does not count.
    LimitClosed { limit: String },
    /// More is asked of this replica than it can carry.
    Overloaded,
    /// The caller leaves so much of earlier answers unread that nothing more begins.
    Unread,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Self::InsufficientScope { .. } | Self::Denied { .. } | Self::Host | Self::Origin => {
                StatusCode::FORBIDDEN
            }
            Self::AuthUnavailable
            | Self::Unverified
            | Self::LimitClosed { .. }
            | Self::Overloaded
            | Self::Unread
            | Self::SessionsAway
            | Self::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::ContentEncoding | Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::Body
            | Self::Headers(_)
            | Self::Parse(_)
            | Self::Invalid(_)
            | Self::Params(_)
            | Self::EventId => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            // A client that gets it opens another session (MCP, Streamable HTTP).
            Self::NoSession | Self::NoEndpoint => StatusCode::NOT_FOUND,
            Self::TooMany { .. } | Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// JSON-RPC 2.0 section 5.1, and the edge's own.
    fn code(&self) -> i32 {
        match self {
            Self::Unauthenticated { .. } => UNAUTHENTICATED,
            Self::InsufficientScope { .. } | Self::Denied { .. } | Self::Host | Self::Origin => {
                FORBIDDEN
            }
            Self::Limited(_) => LIMITED,
            Self::AuthUnavailable
            | Self::Unverified
            | Self::LimitClosed { .. }
            | Self::Overloaded
            | Self::Unread
            | Self::SessionsAway
            | Self::Full { .. }
            | Self::TooMany { .. } => UNAVAILABLE,
            Self::NoSession => NO_SESSION,
            Self::Parse(_) => -32700,
            Self::TooLarge { .. }
            | Self::Body
            | Self::Slow
            | Self::Headers(_)
            | Self::ContentEncoding
            | Self::ContentType
            | Self::NotAcceptable
            | Self::Invalid(_)
            | Self::Method
            | Self::EventId
            | Self::NoEndpoint => -32600,
            Self::Params(_) => -32602,
        }
    }

    /// A word for logs and metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::Denied { .. } => "policy_denied",
            Self::AuthUnavailable => "auth_unavailable",
            Self::Unverified => "unverified",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::TooLarge { .. } => "too_large",
            Self::Body => "body",
            Self::Slow => "slow",
            Self::Headers(_) => "headers",
            Self::ContentEncoding => "content_encoding",
            Self::ContentType => "content_type",
            Self::NotAcceptable => "not_acceptable",
            Self::Parse(_) => "parse",
            Self::Invalid(_) => "invalid_request",
            Self::Params(_) => "invalid_params",
            Self::NoEndpoint => "no_endpoint",
            Self::NoSession => "no_session",
            Self::SessionsAway => "sessions_unavailable",
            Self::TooMany { what: "streams", .. } => "too_many_streams",
            Self::TooMany { .. } => "too_many_sessions",
            Self::Full { what: "streams" } => "streams_full",
            Self::Full { .. } => "sessions_full",
            Self::Method => "method_not_allowed",
            Self::EventId => "event_id",
            Self::Limited(_) => "rate_limited",
            Self::LimitClosed { .. } => "limit_closed",
            Self::Overloaded => "overloaded",
            Self::Unread => "answers_unread",
        }
    }

    /// What the caller is told, in a bounded text: some of it may be the caller's own.
    fn message(&self) -> String {
        let mut message = self.text();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message
    }

    fn text(&self) -> String {
        match self {
            // Older inspectors look for the word.
            Self::Unauthenticated { description: None } => {
                "Unauthorized: an access token is needed".to_owned()
            }
            Self::Unauthenticated { description: Some(description) } => {
                format!("Unauthorized: {description}")
            }
            Self::InsufficientScope { scopes } => {
                format!("the access token needs the scopes: {}", scopes.join(" "))
            }
            Self::Denied { item, reason, .. } => format!("denied by policy: {item}: {reason}"),
            Self::AuthUnavailable => "nobody can say now whether this is allowed; try again".to_owned(),
            Self::Unverified => "the access token cannot be verified now; try again".to_owned(),
            Self::Host => "the Host header names another server".to_owned(),
            Self::Origin => "the page's origin is not allowed".to_owned(),
            Self::TooLarge { bytes_max } => format!("the body is larger than {bytes_max} bytes"),
            Self::Body => "the body did not come".to_owned(),
            Self::Slow => "the body came too slowly".to_owned(),
            Self::Headers(what) => (*what).to_owned(),
            Self::ContentEncoding => "the body must have no Content-Encoding".to_owned(),
            Self::ContentType => "the Content-Type must be application/json".to_owned(),
            Self::NotAcceptable => "the client must accept application/json or text/event-stream".to_owned(),
            Self::Parse(what) => format!("the body is not JSON: {what}"),
            Self::Invalid(what) => format!("the body is not a JSON-RPC 2.0 message: {what}"),
            Self::Params(what) => format!("the parameters are not right: {what}"),
            Self::NoEndpoint => "there is no service of this name here".to_owned(),
            Self::NoSession => "there is no such session; initialize again".to_owned(),
            Self::SessionsAway => "nobody can say now whether there is such a session; try again".to_owned(),
            Self::TooMany { what, max } => format!("there are {max} {what} open already; end one"),
            Self::Full { what } => format!("there are as many {what} open as there may be; try again"),
            Self::Method => "only POST, and GET and DELETE with a session, have a meaning here".to_owned(),
            Self::EventId => {
                "the Last-Event-ID names no event of this session that can be taken up again".to_owned()
            }
            Self::Limited(standing) => {
                let (limit, seconds) = (standing.limit(), standing.seconds());
                format!("the rate limit {limit} is reached; try again in {seconds} s")
            }
            Self::LimitClosed { limit } => {
                format!("nobody can say now whether the rate limit {limit} is reached; try again")
            }
            Self::Overloaded => "there is more to do now than can be done; try again".to_owned(),
            Self::Unread => {
                "too much of earlier answers has not been read; read it, then try again: nothing was done"
                    .to_owned()
            }
        }
    }

    fn data(&self, request_id: &RequestId) -> Value {
        let mut data = json!({ "requestId": request_id.as_str(), "reason": self.word() });
        match self {
            Self::InsufficientScope { scopes } => data["scopes"] = json!(scopes),
            Self::Limited(standing) => {
                data["limit"] = json!(standing.limit());
                data["remaining"] = json!(standing.remaining);
                data["retryAfterMs"] = json!(standing.millis());
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
            Self::AuthUnavailable
            | Self::Unverified
            | Self::LimitClosed { .. }
            | Self::Overloaded
            | Self::Unread
            | Self::SessionsAway
            | Self::Full { .. } => Some(RETRY_AFTER_SECONDS),
            Self::Limited(standing) => Some(standing.seconds()),
            _ => None,
        }
    }

    /// Counts and logs it.
    pub(crate) fn record(&self, request_id: &RequestId) {
        let (reason, message) = (self.word(), self.message());
        if matches!(self, Self::Overloaded) {
            // The access log has it too, and there is too much to do already.
            tracing::debug!(%request_id, reason, message, "refused");
        } else {
            tracing::info!(%request_id, reason, message, "refused");
        }
        metrics::counter!("edge_refusals_total", "reason" => reason).increment(1);
    }

    /// The answer to the message `id`, or to no message in particular.
    pub(crate) fn into_response(
        self,
        id: Value,
        request_id: &RequestId,
        endpoint: &Endpoint,
    ) -> Response {
        self.record(request_id);
        let message = self.message();
        let error = json!({
            "jsonrpc": "2.0",
            "id": id,
            "error": { "code": self.code(), "message": message, "data": self.data(request_id) },
        });
        let mut response = (self.status(), axum::Json(error)).into_response();
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge(endpoint) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Self::Limited(standing) = &self {
            standing.tell(headers);
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
                let description = in_quotes(description);
                let error =
                    format!(r#"error="invalid_token", error_description="{description}", "#);
                (error, endpoint.scopes())
            }
            Self::InsufficientScope { scopes } => {
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

/// A text as it may stand in a quoted string of a header (RFC 6750 section 3: printable ASCII, neither quotation mark nor
/// backslash), within bounds.
fn in_quotes(text: &str) -> String {
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
    fn a_description_fits_a_header_whatever_it_says() {
        assert_eq!(in_quotes("a \"b\\c\"\r\nd é"), "a 'b'c'??d ?");
        assert_eq!(in_quotes(&"é".repeat(MESSAGE_BYTES_MAX)).len(), MESSAGE_BYTES_MAX / 2);
    }
}
