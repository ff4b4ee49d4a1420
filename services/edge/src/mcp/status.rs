//! The single mapping of gRPC statuses to MCP.

use std::time::Duration;

use rmcp::model::ErrorCode;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error_codes;

/// The JSON-RPC code of a transient failure.
pub(super) const UNAVAILABLE: ErrorCode = ErrorCode(error_codes::UNAVAILABLE);
/// When a client may retry, unless the service names a delay.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether a model can act on the failure, so that a tool's result reports it.
pub(super) fn is_for_model(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Aborted
            | Code::PermissionDenied
            | Code::ResourceExhausted
    )
}

/// What becomes of a tool service's status.
#[derive(Clone, Copy, Debug)]
pub struct GrpcErrorCode {
    /// The status.
    pub status: Code,
    /// Whether the result of a tool reports it to the model, with the service's message.
    pub is_for_model: bool,
    /// The JSON-RPC code otherwise.
    pub json_rpc: i32,
}

/// What becomes of each status but OK.
pub fn grpc_error_codes() -> impl Iterator<Item = GrpcErrorCode> {
    let statuses = (1..=16).map(Code::from_i32);
    statuses.map(|status| GrpcErrorCode {
        status,
        is_for_model: is_for_model(status),
        json_rpc: to_json_rpc(&Status::new(status, "")).0.0,
    })
}

/// Whether the service rejects this call, and would reject it again.
pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::PermissionDenied
    )
}

/// Whether the outcome is unknown: the service may still carry out the call.
pub(super) fn is_unresolved(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

/// Converts a failure to a JSON-RPC error. An internal cause of the service stays in the log.
pub(super) fn to_json_rpc(status: &Status) -> (ErrorCode, String, Value) {
    let message = || status.message().to_owned();
    match status.code() {
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::PermissionDenied => (ErrorCode::INVALID_PARAMS, message(), json!({})),
        Code::NotFound => (ErrorCode::RESOURCE_NOT_FOUND, message(), json!({})),
        Code::Unavailable => retryable(status, "the tool service is unavailable; retry"),
        Code::DeadlineExceeded => retryable(status, "the tool service took too long; retry"),
        Code::ResourceExhausted | Code::Aborted => {
            retryable(status, "the tool service is busy; retry")
        }
        Code::Cancelled => {
            (ErrorCode::INTERNAL_ERROR, "the call was cancelled".to_owned(), json!({}))
        }
        _ => (ErrorCode::INTERNAL_ERROR, "the tool service failed".to_owned(), json!({})),
    }
}

fn retryable(status: &Status, message: &str) -> (ErrorCode, String, Value) {
    let after = retry_after(status).unwrap_or(RETRY_AFTER);
    (UNAVAILABLE, message.to_owned(), retryable_data(after))
}

/// The error data with the delay after which a client may retry.
pub(super) fn retryable_data(after: Duration) -> Value {
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    json!({ "retryable": true, "retryAfterMs": after_ms })
}

/// The delay before a retry that the service requests (`google.rpc.RetryInfo`).
pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}
