//! The one table from gRPC status to MCP.

use rmcp::model::ErrorCode;
use serde_json::{Value, json};
use tonic::{Code, Status};

/// The JSON-RPC code of a failure that may pass by itself.
const UNAVAILABLE: ErrorCode = ErrorCode(-32053);
/// When a client may try again, in milliseconds.
const RETRY_AFTER_MS: u32 = 1000;

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

/// The JSON-RPC error of a failure. A cause that is the service's own affair stays in the log.
pub(super) fn to_json_rpc(status: &Status) -> (ErrorCode, String, Value) {
    let told = || status.message().to_owned();
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::PermissionDenied => {
            (ErrorCode::INVALID_PARAMS, told(), json!({}))
        }
        Code::NotFound => (ErrorCode::RESOURCE_NOT_FOUND, told(), json!({})),
        Code::Unavailable => retryable("the tool service is not available now; try again"),
        Code::DeadlineExceeded => retryable("the tool service took too long; try again"),
        Code::ResourceExhausted | Code::Aborted => retryable("the tool service is busy; try again"),
        Code::Cancelled => (ErrorCode::INTERNAL_ERROR, "the call was cancelled".to_owned(), json!({})),
        _ => (ErrorCode::INTERNAL_ERROR, "the tool service failed".to_owned(), json!({})),
    }
}

fn retryable(message: &str) -> (ErrorCode, String, Value) {
    (UNAVAILABLE, message.to_owned(), json!({ "retryable": true, "retryAfterMs": RETRY_AFTER_MS }))
}
