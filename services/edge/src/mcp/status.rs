//! The one table from gRPC status to MCP.

use std::time::Duration;

use rmcp::model::ErrorCode;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The JSON-RPC code of a failure that may pass by itself.
pub(super) const UNAVAILABLE: ErrorCode = ErrorCode(-32053);
/// When a client may try again, where the service says nothing.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether the failure is one that a model can act on, so that a tool's result tells of it.
pub(super) fn is_for_the_model(code: Code) -> bool {
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

/// Whether the service refuses this very call, and would again.
pub(super) fn says_no(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::PermissionDenied
    )
}

/// Whether nobody knows how the call ends: it may still be carried out.
pub(super) fn is_open(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

/// The JSON-RPC error of a failure. A cause that is the service's own affair stays in the log.
pub(super) fn to_json_rpc(status: &Status) -> (ErrorCode, String, Value) {
    let error_chain = || status.message().to_owned();
    match status.code() {
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::PermissionDenied => (ErrorCode::INVALID_PARAMS, error_chain(), json!({})),
        Code::NotFound => (ErrorCode::RESOURCE_NOT_FOUND, error_chain(), json!({})),
        Code::Unavailable => retryable(status, "the tool service is not available now; try again"),
        Code::DeadlineExceeded => retryable(status, "the tool service took too long; try again"),
        Code::ResourceExhausted | Code::Aborted => {
            retryable(status, "the tool service is busy; try again")
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

/// What tells a client that it may try again, and when.
pub(super) fn retryable_data(after: Duration) -> Value {
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    json!({ "retryable": true, "retryAfterMs": after_ms })
}

/// When the service says that it may be called again (`google.rpc.RetryInfo`).
pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}
