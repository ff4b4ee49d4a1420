//! Converts the outcome of a call to MCP's result or error.

use drawbridge_contract::dynamic::WireMessage;
use drawbridge_transport::status_name;
use rmcp::{
    ErrorData,
    model::{CallToolResult, CompleteResult, CompletionInfo, MetaObject, ServerResult},
};
use serde_json::Value;
use tonic::{Code, Status};

use super::{
    MethodHandler, cache_status,
    call::{CallFailure, CallOutcome, CallRunner, ClientInput, log_failure, to_error_data},
    content, ending,
    errors::{
        client_error, error_result, input_unsupported, invalid_arguments, invalid_params,
        request_meta, transformation_failed, unknown_item, unknown_resource, with_request_id,
    },
    exchange::Exchange,
    status, watch,
    wire::MethodOutcome,
};
use crate::{
    admitted::{Admission, Call, Plan},
    catalog::ToolItem,
    grpc::{has_tool_result, upstream::RpcTarget},
    recorder::Ending,
    traffic::guard::GuardedItem,
    traffic::transform::Direction,
};

pub(super) async fn call_tool(
    handler: &MethodHandler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<MethodOutcome, ErrorData> {
    let (tool, call) = match &admission.plan {
        Plan::CallTool(tool, call) => (tool, call),
        Plan::InvalidArguments(tool, error) => {
            admission.recorder.set_ending(ending::INVALID_ARGUMENTS);
            let result = invalid_arguments(tool, error);
            let item = admission.recorder.guarded(&tool.item.name);
            let result = handler.guards.tool_result(item, result);
            return Ok(with_request_id(result, admission).into());
        }
        Plan::TransformFailed(tool) => {
            return Err(transformation_failed(tool, Direction::Request, admission));
        }
        // Admission found no such tool.
        _ => {
            return Err(unknown_item("there is no tool with this name", admission));
        }
    };
    let input = parse_input(params).ok_or_else(|| invalid_params(admission))?;
    let mut cache_status = None;
    let runner = runner(handler, admission, exchange, &tool.target, call);
    let result = match runner.with_caching(&tool.caching).run(input).await {
        Ok(CallOutcome::InputRequired(result)) => return Ok(result.into()),
        Ok(CallOutcome::InputUnsupported) => {
            error_result("this tool needs input from the client, which does not support it")
        }
        Ok(CallOutcome::Result(message, status)) => {
            if let Some(json) = unchanged_json(handler, tool, &message, admission)? {
                let meta = request_meta(cache_status::with_meta(None, status), admission);
                return Ok(MethodOutcome::Object { json, meta });
            }
            cache_status = status;
            let result = content::tool_result(&message)
                .map_err(|status| to_error_data(&status, admission))?;
            transform(tool, result, admission).await?
        }
        Err(CallFailure::Status(status)) if status::is_for_model(status.code()) => {
            log_failure(admission, &status);
            let code = status_name(status.code());
            admission.recorder.set_ending(Ending::tool_error(code));
            error_result(status.message())
        }
        Err(failure) => return Err(client_error(failure, admission)),
    };
    let item = admission.recorder.guarded(&tool.item.name);
    let mut result = handler.guards.tool_result(item, result);
    result.meta = result.meta.and_then(|meta| visible_meta(handler, item, meta));
    result.meta = cache_status::with_meta(result.meta, cache_status);
    Ok(with_request_id(result, admission).into())
}

/// The result's JSON object, if neither a transformation nor a guard can change it.
fn unchanged_json(
    handler: &MethodHandler,
    tool: &ToolItem,
    message: &WireMessage,
    admission: &Admission,
) -> Result<Option<String>, ErrorData> {
    let is_changed = tool.transformation.is_some() || handler.guards.has_guard(&tool.item.name);
    if is_changed || has_tool_result(message.descriptor()) {
        return Ok(None);
    }
    let json = content::json_text(message).map_err(|status| to_error_data(&status, admission))?;
    Ok(Some(json).filter(|json| json.starts_with('{')))
}

/// The part of a tool's `_meta` that clients receive.
fn visible_meta(
    handler: &MethodHandler,
    item: GuardedItem<'_>,
    meta: MetaObject,
) -> Option<MetaObject> {
    let mut meta = Value::Object(handler.catalogs.load().meta_keys().of_result(meta)?.0);
    handler.guards.value(item, &mut meta);
    match meta {
        Value::Object(meta) => Some(MetaObject(meta)),
        _ => None,
    }
}

/// Applies the tool's configured transformation to its result.
async fn transform(
    tool: &ToolItem,
    result: CallToolResult,
    admission: &Admission,
) -> Result<CallToolResult, ErrorData> {
    let Some(transformation) = &tool.transformation else { return Ok(result) };
    let result = transformation.response(&tool.item.name, result, &admission.grant.principal).await;
    result.map_err(|failure| {
        let Admission { span, context, .. } = admission;
        let _entered = span.enter();
        let (request_id, name) = (&context.request_id, &tool.item.name);
        tracing::error!(%request_id, tool = name, %failure, "a response transformation failed");
        transformation_failed(tool, Direction::Response, admission)
    })
}

pub(super) async fn read_resource(
    handler: &MethodHandler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<ServerResult, ErrorData> {
    let uri = watch::uri(params);
    let Plan::ReadResource(resource, call) = &admission.plan else {
        return Err(unknown_resource(uri, admission));
    };
    let input = parse_input(params).ok_or_else(|| invalid_params(admission))?;
    let runner = runner(handler, admission, exchange, &resource.target, call);
    match runner.with_caching(&resource.caching).run(input).await {
        Ok(CallOutcome::InputRequired(result)) => Ok(result.into()),
        Ok(CallOutcome::InputUnsupported) => Err(input_unsupported(admission)),
        Ok(CallOutcome::Result(message, status)) => {
            let read = content::resource_contents(&message, uri, resource.mime_type.as_deref());
            let mut result = read.map_err(|status| to_error_data(&status, admission))?;
            (result.ttl_ms, result.cache_scope) = cache_status::hints(status);
            let item = admission.recorder.guarded(&resource.item.name);
            let mut result = handler.guards.resource(item, result);
            result.meta = cache_status::with_meta(result.meta, status);
            Ok(result.into())
        }
        Err(CallFailure::Status(status)) if status.code() == Code::NotFound => {
            log_failure(admission, &status);
            Err(unknown_resource(uri, admission))
        }
        Err(failure) => Err(client_error(failure, admission)),
    }
}

pub(super) async fn get_prompt(
    handler: &MethodHandler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<ServerResult, ErrorData> {
    let Plan::GetPrompt(prompt, call) = &admission.plan else {
        return Err(unknown_item("there is no prompt with this name", admission));
    };
    let input = parse_input(params).ok_or_else(|| invalid_params(admission))?;
    match runner(handler, admission, exchange, &prompt.target, call).run(input).await {
        Ok(CallOutcome::InputRequired(result)) => Ok(result.into()),
        Ok(CallOutcome::InputUnsupported) => Err(input_unsupported(admission)),
        Ok(CallOutcome::Result(message, _)) => {
            let result =
                content::prompt(&message).map_err(|status| to_error_data(&status, admission))?;
            let item = admission.recorder.guarded(&prompt.item.name);
            Ok(handler.guards.prompt(item, result).into())
        }
        Err(failure) => Err(client_error(failure, admission)),
    }
}

pub(super) async fn complete(
    handler: &MethodHandler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<ServerResult, ErrorData> {
    if !is_completion(params) {
        return Err(invalid_params(admission));
    }
    let mut found = match &admission.plan {
        Plan::Complete(completion, call) => {
            let runner = runner(handler, admission, exchange, &completion.target, call);
            match runner.run(ClientInput::default()).await {
                Ok(CallOutcome::Result(message, _)) => {
                    let found = content::completion(&message);
                    let mut found = found.map_err(|status| to_error_data(&status, admission))?;
                    let item = admission.recorder.guarded(&completion.item.name);
                    handler.guards.texts(item, &mut found.values);
                    found
                }
                Ok(_) => return Err(input_unsupported(admission)),
                Err(failure) => return Err(client_error(failure, admission)),
            }
        }
        // Nothing completes this argument.
        _ => drawbridge_proto::mcp::v1::Completion::default(),
    };
    let is_truncated = found.values.len() > CompletionInfo::MAX_VALUES;
    found.values.truncate(CompletionInfo::MAX_VALUES);
    let info =
        CompletionInfo::with_pagination(found.values, found.total, found.has_more || is_truncated);
    let info = info.map_err(|error| to_error_data(&Status::internal(error), admission))?;
    Ok(CompleteResult::new(info).into())
}

/// Whether these are parameters of `completion/complete`.
fn is_completion(params: &Value) -> bool {
    let is_text = |value: &Value| value.is_string();
    let (reference, argument) = (&params["ref"], &params["argument"]);
    let target = match reference["type"].as_str() {
        Some("ref/prompt") => &reference["name"],
        Some("ref/resource") => &reference["uri"],
        _ => return false,
    };
    [target, &argument["name"], &argument["value"]].into_iter().all(is_text)
}

/// Parses the input that a client sends with a repeated call. `None`: it is invalid.
fn parse_input(params: &Value) -> Option<ClientInput> {
    let param = |name: &str| params.get(name).filter(|value| !value.is_null());
    let responses =
        param("inputResponses").map(|responses| serde_json::from_value(responses.clone()));
    let state = param("requestState").map(|state| state.as_str().map(ToOwned::to_owned).ok_or(()));
    Some(ClientInput { responses: responses.transpose().ok()?, state: state.transpose().ok()? })
}

fn runner<'a>(
    handler: &'a MethodHandler,
    admission: &'a Admission,
    exchange: &'a Exchange,
    target: &'a RpcTarget,
    call: &'a Call,
) -> CallRunner<'a> {
    CallRunner { handler, admission, exchange, target, caching: None, call }
}
