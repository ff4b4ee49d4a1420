//! What a client is told when something is not as it should be. Each names the request.

use std::time::Duration;

use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, ErrorCode, MetaObject},
};
use serde_json::{Value, json};

use super::{
    call::{Failure, failure},
    status,
};
use crate::{
    admission::Admission, catalog::ToolItem, traffic::queue::Busy, traffic::transform::Direction,
};

/// When a client may try again whose call was not its turn in time.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The `_meta` key of the request id.
const META_REQUEST_ID: &str = "drawbridge/requestId";

/// A result that tells the model what went wrong.
pub(super) fn failed(message: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(message)])
}

pub(super) fn wrong_arguments(tool: &ToolItem, wrong: &str) -> CallToolResult {
    failed(&format!("invalid arguments for {}: {wrong}", tool.tool.name))
}

pub(super) fn client_error(failed: Failure, admission: &Admission) -> ErrorData {
    match failed {
        Failure::Status(status) => failure(&status, admission),
        Failure::Busy(busy) => too_busy(busy, admission),
        Failure::Client(error) => with_request(error, admission),
    }
}

/// An error that names the request.
pub(super) fn with_request(mut error: ErrorData, admission: &Admission) -> ErrorData {
    let data = error.data.get_or_insert_with(|| json!({}));
    if data.is_object() {
        data["requestId"] = json!(admission.context.request_id.as_str());
    }
    error
}

/// The call did not reach the tool service, and may be made again.
fn too_busy(busy: Busy, admission: &Admission) -> ErrorData {
    let Admission { span, context, .. } = admission;
    span.record("error.type", busy.word());
    tracing::info!(request_id = %context.request_id, reason = busy.word(), "a call was not its turn in time");
    let message = match busy {
        Busy::Caller => "you have too many calls under way; try again when some have ended",
        Busy::Line => "the tool service is busy; try again",
    };
    let mut data = status::retryable_data(BUSY_RETRY_AFTER);
    data["reason"] = json!(busy.word());
    data["requestId"] = json!(context.request_id.as_str());
    ErrorData::new(status::UNAVAILABLE, message, Some(data))
}

pub(super) fn error(code: ErrorCode, message: &'static str, admission: &Admission) -> ErrorData {
    let data = json!({ "requestId": admission.context.request_id.as_str() });
    ErrorData::new(code, message, Some(data))
}

pub(super) fn no_method(admission: &Admission) -> ErrorData {
    error(ErrorCode::METHOD_NOT_FOUND, "there is no method of this name", admission)
}

pub(super) fn invalid_params(admission: &Admission) -> ErrorData {
    error(ErrorCode::INVALID_PARAMS, "the parameters are not this method's", admission)
}

pub(super) fn no_resource(uri: &str, admission: &Admission) -> ErrorData {
    let data = json!({ "requestId": admission.context.request_id.as_str(), "uri": uri });
    ErrorData::resource_not_found("there is no resource of this URI", Some(data))
}

pub(super) fn wrong_cursor(admission: &Admission) -> ErrorData {
    error(ErrorCode::INVALID_PARAMS, "the cursor is not one that was given here", admission)
}

pub(super) fn cannot_ask(admission: &Admission) -> ErrorData {
    let message = "this has to ask something first, and the client cannot be asked";
    error(ErrorCode::INVALID_REQUEST, message, admission)
}

/// What was not transformed goes nowhere; why is the operator's affair.
pub(super) fn not_transformed(
    tool: &ToolItem,
    direction: Direction,
    admission: &Admission,
) -> ErrorData {
    admission.span.record("error.type", "transform");
    admission.span.record("otel.status_code", "ERROR");
    let message =
        format!("the {} of {} could not be transformed", direction.word(), tool.tool.name);
    let request_id = admission.context.request_id.as_str();
    let data = json!({ "requestId": request_id, "reason": "transform" });
    ErrorData::new(ErrorCode::INTERNAL_ERROR, message, Some(data))
}

/// Admission and the method do not fit. Nothing is done.
pub(super) fn not_planned(admission: &Admission) -> ErrorData {
    tracing::error!(request_id = %admission.context.request_id, "the gate admitted something else");
    error(ErrorCode::INTERNAL_ERROR, "internal error", admission)
}

pub(super) fn with_request_id(mut result: CallToolResult, admission: &Admission) -> CallToolResult {
    result.meta = Some(request_meta(result.meta.take(), admission));
    result
}

/// The metadata of a result, which names the request.
pub(super) fn request_meta(meta: Option<MetaObject>, admission: &Admission) -> MetaObject {
    let mut meta = meta.unwrap_or_default();
    meta.insert(META_REQUEST_ID.to_owned(), Value::from(admission.context.request_id.as_str()));
    meta
}
