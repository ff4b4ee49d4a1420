use std::{
    fmt,
    net::IpAddr,
    str::FromStr,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue};
use tracing::{Span, field::Empty};
use uuid::Uuid;

use crate::telemetry::trace;

/// The header and gRPC metadata key of the request id.
pub const REQUEST_ID: &str = "x-request-id";
/// The gRPC metadata key of the transaction token (draft-ietf-oauth-transaction-tokens section 8).
pub const TXN_TOKEN: &str = "txn-token";

/// The longest request id that is accepted from a caller, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// The timeout of a call that does not set one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The id that correlates everything that one request causes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

/// The request id that an external caller sent. Logs and spans show it next to the request's own
/// id. Nothing depends on it: two requests may send the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRequestId(pub RequestId);

impl CallerRequestId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A text is not a valid request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request id has 1 to {REQUEST_ID_BYTES_MAX} of the characters A-Z a-z 0-9 . _ -")]
pub struct RequestIdError;

impl RequestId {
    /// A new id. Ids sort by time.
    #[must_use]
    pub fn generate() -> Self {
        let text = Uuid::now_v7().to_string();
        Self(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("-")))
    }

    /// The id that the caller sent, or a new one if it sent none or one that is not safe to log.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self::from_caller(headers).unwrap_or_else(Self::generate)
    }

    /// The id that the caller sent, if it is safe to log.
    #[must_use]
    pub fn from_caller(headers: &HeaderMap) -> Option<Self> {
        headers.get(REQUEST_ID)?.to_str().ok()?.parse().ok()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as a header value.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > REQUEST_ID_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(RequestIdError);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| RequestIdError)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is propagated with a call from hop to hop: its request id and its deadline. The span
/// carries the trace.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The request that caused the call.
    pub request_id: RequestId,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// The address of the client that caused it, if the edge knows it. It is not propagated
    /// automatically.
    pub client_address: Option<IpAddr>,
}

impl CallContext {
    /// A context whose deadline is `timeout` from now.
    #[must_use]
    pub fn new(request_id: RequestId, timeout: Duration) -> Self {
        Self { request_id, deadline: Instant::now() + timeout, client_address: None }
    }

    /// The context of an incoming gRPC call.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let timeout = headers
            .get("grpc-timeout")
            .and_then(|value| grpc_timeout(value.to_str().ok()?))
            .unwrap_or(DEFAULT_TIMEOUT);
        Self::new(RequestId::from_headers(headers), timeout.min(DEFAULT_TIMEOUT))
    }

    /// The context that the server put into the extensions of a gRPC request.
    pub fn from_request<T>(request: &tonic::Request<T>) -> Self {
        request
            .extensions()
            .get()
            .cloned()
            .unwrap_or_else(|| Self::new(RequestId::generate(), DEFAULT_TIMEOUT))
    }

    /// The same context, for a step that may take at most `timeout`.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let deadline = self.deadline.min(Instant::now() + timeout);
        Self { deadline, ..self.clone() }
    }

    /// The time left until the deadline.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A gRPC request that carries this context and the current span's trace.
    pub fn outgoing<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.remaining());
        let metadata = request.metadata_mut();
        let headers: &mut HeaderMap = metadata.as_mut();
        let mut id = self.request_id.header();
        // The value differs for each call, so it must not enter HTTP/2's header table.
        id.set_sensitive(true);
        headers.insert(REQUEST_ID, id);
        if let Some(timeout) = headers.get_mut("grpc-timeout") {
            timeout.set_sensitive(true);
        }
        trace::inject(metadata);
        request
    }
}

/// The span of an outgoing RPC, by OpenTelemetry's conventions. A request that is built within it
/// propagates the trace. [`end_client_span`] records its outcome.
pub fn client_span(rpc: &str) -> Span {
    tracing::info_span!(
        "rpc",
        otel.name = rpc,
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = rpc,
        rpc.response.status_code = Empty,
    )
}

/// Records the outcome of an outgoing RPC in its span.
pub fn end_client_span(span: &Span, code: tonic::Code) {
    span.record("rpc.response.status_code", format!("{code:?}"));
    if code != tonic::Code::Ok {
        span.record("otel.status_code", "ERROR");
    }
}

/// Adds a transaction token to a gRPC request.
///
/// # Errors
/// `INTERNAL` when the token is not a valid header value.
pub fn with_transaction_token<T>(
    mut request: tonic::Request<T>,
    token: &str,
) -> Result<tonic::Request<T>, tonic::Status> {
    let mut token: tonic::metadata::AsciiMetadataValue = token.parse().map_err(|_| {
        tonic::Status::internal("the transaction token is not a valid header value")
    })?;
    token.set_sensitive(true);
    request.metadata_mut().insert(TXN_TOKEN, token);
    Ok(request)
}

/// Parses a `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_that_could_forge_a_log_line_is_rejected() {
        for text in ["", "a b", "a\nb", "ä", &"x".repeat(129)] {
            assert_eq!(text.parse::<RequestId>(), Err(RequestIdError), "{text:?}");
        }
        assert_eq!(
            "req-1.A_b".parse::<RequestId>().map(|id| id.to_string()),
            Ok("req-1.A_b".into())
        );
    }

    #[test]
    fn a_grpc_timeout_is_parsed_in_every_unit_and_rejected_when_malformed() {
        assert_eq!(grpc_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(grpc_timeout("150m"), Some(Duration::from_millis(150)));
        assert_eq!(grpc_timeout("1H"), Some(Duration::from_secs(3600)));
        for text in ["", "S", "123456789S", "1x", "-1S", "1é"] {
            assert_eq!(grpc_timeout(text), None, "{text:?}");
        }
    }
}
