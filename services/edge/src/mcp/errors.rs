//! Errors for clients. Each one names its request.

use std::time::Duration;

use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, ErrorCode, MetaObject},
};
use serde_json::{Value, json};
use tonic::Status;

use super::{
    call::{CallFailure, to_error_data},
    ending, status,
};
use crate::{
    admitted::Admission, catalog::ToolItem, recorder::Ending, traffic::queue::Busy,
    traffic::transform::Direction,
};

/// When a client may retry a call that got no permit in time.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The `_meta` key of the request id.
const META_REQUEST_ID: &str = "drawbridge/requestId";

/// A result that reports an error to the model.
pub(super) fn error_result(message: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(message)])
}

pub(super) fn invalid_arguments(tool: &ToolItem, error: &str) -> CallToolResult {
    error_result(&format!("invalid arguments for {}: {error}", tool.tool.name))
}

pub(super) fn client_error(failure: CallFailure, admission: &Admission) -> ErrorData {
    match failure {
        CallFailure::Status(status) => to_error_data(&status, admission),
        CallFailure::Busy(busy) => too_busy(busy, admission),
        CallFailure::Client(error) => with_request(error, admission),
    }
}

/// Adds the request id to an error.
pub(super) fn with_request(mut error: ErrorData, admission: &Admission) -> ErrorData {
    let data = error.data.get_or_insert_with(|| json!({}));
    if data.is_object() {
        data["requestId"] = json!(admission.context.request_id.as_str());
    }
    error
}

/// The call did not reach the tool service, and may be retried.
fn too_busy(busy: Busy, admission: &Admission) -> ErrorData {
    let Admission { context, .. } = admission;
    admission.recorder.set_ending(Ending::refused(busy.reason()));
    let (request_id, reason) = (&context.request_id, busy.reason());
    tracing::info!(%request_id, reason, "a call got no permit in time");
    let message = match busy {
        Busy::Caller => "you have too many calls in progress; retry when some have finished",
        Busy::Queue => "the tool service is busy; retry",
    };
    let mut data = status::retryable_data(BUSY_RETRY_AFTER);
    data["reason"] = json!(busy.reason());
    data["requestId"] = json!(context.request_id.as_str());
    ErrorData::new(status::UNAVAILABLE, message, Some(data))
}

pub(super) fn error(code: ErrorCode, message: &'static str, admission: &Admission) -> ErrorData {
    let data = json!({ "requestId": admission.context.request_id.as_str() });
    ErrorData::new(code, message, Some(data))
}

pub(super) fn unknown_method(admission: &Admission) -> ErrorData {
    error(ErrorCode::METHOD_NOT_FOUND, "unknown method", admission)
}

pub(super) fn invalid_params(admission: &Admission) -> ErrorData {
    error(ErrorCode::INVALID_PARAMS, "invalid parameters for this method", admission)
}

/// The service has been down since the edge started, so that its contract is not known.
pub(super) fn unread(admission: &Admission) -> ErrorData {
    let status = Status::unavailable("the contract of the service has not been read yet");
    to_error_data(&status, admission)
}

pub(super) fn unknown_resource(uri: &str, admission: &Admission) -> ErrorData {
    admission.recorder.set_ending(ending::UNKNOWN_ITEM);
    let data = json!({ "requestId": admission.context.request_id.as_str(), "uri": uri });
    ErrorData::resource_not_found("there is no resource with this URI", Some(data))
}

pub(super) fn invalid_cursor(admission: &Admission) -> ErrorData {
    error(ErrorCode::INVALID_PARAMS, "invalid cursor: this server did not issue it", admission)
}

pub(super) fn input_unsupported(admission: &Admission) -> ErrorData {
    let message = "this needs input from the client, which does not support it";
    error(ErrorCode::INVALID_REQUEST, message, admission)
}

/// An untransformed value is never sent. Only the log contains the cause.
pub(super) fn transformation_failed(
    tool: &ToolItem,
    direction: Direction,
    admission: &Admission,
) -> ErrorData {
    admission.recorder.set_ending(ending::TRANSFORM);
    let message =
        format!("the {} of {} could not be transformed", direction.as_str(), tool.tool.name);
    let request_id = admission.context.request_id.as_str();
    let data = json!({ "requestId": request_id, "reason": "transform" });
    ErrorData::new(ErrorCode::INTERNAL_ERROR, message, Some(data))
}

/// The request names an item that no service offers, or that is hidden from the caller.
pub(super) fn unknown_item(message: &'static str, admission: &Admission) -> ErrorData {
    admission.recorder.set_ending(ending::UNKNOWN_ITEM);
    error(ErrorCode::INVALID_PARAMS, message, admission)
}

/// The request has ended, but its record, which is required, cannot be written.
pub(super) fn unrecorded(admission: &Admission) -> ErrorData {
    let message = "the request has ended, but its result is withheld, because it cannot be \
                   recorded in the audit log; a repeated call may act twice";
    let request_id = admission.context.request_id.as_str();
    let data = json!({ "requestId": request_id, "reason": "audit_unavailable" });
    ErrorData::new(ErrorCode::INTERNAL_ERROR, message, Some(data))
}

/// The plan of the admission does not fit the method. Nothing is done.
pub(super) fn missing_plan(admission: &Admission) -> ErrorData {
    let request_id = &admission.context.request_id;
    tracing::error!(%request_id, "the admission has no plan for this method");
    error(ErrorCode::INTERNAL_ERROR, "internal error", admission)
}

pub(super) fn with_request_id(mut result: CallToolResult, admission: &Admission) -> CallToolResult {
    result.meta = Some(request_meta(result.meta.take(), admission));
    if result.is_error == Some(true) {
        // A person or a model that sees the error can name the request.
        let id = admission.context.request_id.as_str();
        result.content.push(ContentBlock::text(format!("request id: {id}")));
    }
    result
}

/// Adds the request id to the metadata of a result.
pub(super) fn request_meta(meta: Option<MetaObject>, admission: &Admission) -> MetaObject {
    let mut meta = meta.unwrap_or_default();
    meta.insert(META_REQUEST_ID.to_owned(), Value::from(admission.context.request_id.as_str()));
    meta
}
