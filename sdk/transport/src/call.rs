use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use http::HeaderMap;
use tracing::{Span, field::Empty};

use crate::status_name;
use drawbridge_runtime::{REQUEST_ID, RequestId, trace};

/// The gRPC metadata key of the transaction token (draft-ietf-oauth-transaction-tokens section 8).
pub const TXN_TOKEN: &str = "txn-token";

/// The timeout of a call that does not set one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

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
        let headers: &mut HeaderMap = request.metadata_mut().as_mut();
        let mut id = self.request_id.header();
        // The value differs for each call, so it must not enter HTTP/2's header table.
        id.set_sensitive(true);
        headers.insert(REQUEST_ID, id);
        if let Some(timeout) = headers.get_mut("grpc-timeout") {
            timeout.set_sensitive(true);
        }
        trace::inject(headers);
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
        error.type = Empty,
        server.address = Empty,
        server.port = Empty,
    )
}

/// Records the outcome of an outgoing RPC in its span. Every code but `OK` is an error.
pub fn end_client_span(span: &Span, code: tonic::Code) {
    let name = status_name(code);
    span.record("rpc.response.status_code", name);
    if code != tonic::Code::Ok {
        span.record("error.type", name).record("otel.status_code", "ERROR");
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
    fn a_grpc_timeout_is_parsed_in_every_unit_and_rejected_when_malformed() {
        assert_eq!(grpc_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(grpc_timeout("150m"), Some(Duration::from_millis(150)));
        assert_eq!(grpc_timeout("1H"), Some(Duration::from_secs(3600)));
        for text in ["", "S", "123456789S", "1x", "-1S", "1é"] {
            assert_eq!(grpc_timeout(text), None, "{text:?}");
        }
    }
}
