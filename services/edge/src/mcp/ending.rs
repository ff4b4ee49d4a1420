//! How the request of a method ended, for its record.

use drawbridge_audit::event::CallOutcome;
use drawbridge_transport::status_name;
use rmcp::{
    ErrorData,
    model::{ErrorCode, ServerResult},
};
use tonic::{Code, Status};

use super::wire::MethodOutcome;
use crate::recorder::Ending;

/// The code of a call that continues once its client has answered questions.
pub(super) const INPUT_REQUIRED: Ending = Ending::ok("input_required");
/// The headers and the body of a request do not match.
pub(super) const MALFORMED: Ending = Ending::refused("malformed");
/// The arguments of a tool do not match its schema.
pub(super) const INVALID_ARGUMENTS: Ending = Ending::refused("invalid_arguments");
/// No service offers the item.
pub(super) const UNKNOWN_ITEM: Ending = Ending::refused("unknown_item");
/// A transformation failed.
pub(super) const TRANSFORM: Ending = Ending::failed("transform");

/// The ending of a request whose method had this outcome, unless a step has determined another one.
pub(super) fn of(outcome: &Result<MethodOutcome, ErrorData>) -> Ending {
    let is_tool_error = |result: &ServerResult| match result {
        ServerResult::CallToolResult(result) => result.is_error == Some(true),
        _ => false,
    };
    match outcome {
        Ok(MethodOutcome::Result(result)) if is_tool_error(result) => Ending::tool_error(""),
        Ok(_) => Ending::OK,
        Err(error) => {
            let outcome = match error.code {
                ErrorCode::INVALID_PARAMS
                | ErrorCode::INVALID_REQUEST
                | ErrorCode::METHOD_NOT_FOUND
                | ErrorCode::RESOURCE_NOT_FOUND => CallOutcome::Refused,
                _ => CallOutcome::Failed,
            };
            Ending::new(outcome, error.code.0.to_string())
        }
    }
}

/// The ending of a call that ended with this status of its service.
pub(super) fn of_status(status: &Status) -> Ending {
    match status.code() {
        Code::Cancelled => Ending::new(CallOutcome::Cancelled, ""),
        code => Ending::new(CallOutcome::Failed, status_name(code)),
    }
}
