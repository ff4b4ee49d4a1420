//! Calls as MCP has them: what the client gets for each end that a call can have.

use drawbridge_sdk::dynamic::WireMessage;
use rmcp::{
    ErrorData,
    model::{CallToolResult, CompleteResult, CompletionInfo, ErrorCode, MetaObject, ServerResult},
};
use serde_json::Value;
use tonic::{Code, Status};

use super::{
    Handler,
    call::{Answers, Calling, Ended, Failure, failure, log_failure},
    content,
    errors::{
        cannot_ask, client_error, error, failed, invalid_params, no_resource, not_transformed,
        request_meta, with_request_id, wrong_arguments,
    },
    exchange::Exchange,
    reuse, status, watch,
    wire::Outcome,
};
use crate::{
    admission::{Admission, Call, Plan},
    catalog::ToolItem,
    grpc::upstream::Target,
    traffic::transform::Direction,
};

pub(super) async fn call_tool(
    handler: &Handler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<Outcome, ErrorData> {
    let (tool, call) = match &admission.plan {
        Plan::CallTool(tool, call) => (tool, call),
        Plan::WrongArguments(tool, wrong) => {
            let wrong = handler.guards.tool_result(&tool.item.name, wrong_arguments(tool, wrong));
            return Ok(with_request_id(wrong, admission).into());
        }
        Plan::NotTransformed(tool) => {
            return Err(not_transformed(tool, Direction::Request, admission));
        }
        // The gate found no such tool.
        _ => {
            return Err(error(
                ErrorCode::INVALID_PARAMS,
                "there is no tool of this name",
                admission,
            ));
        }
    };
    let answers = answers(params).ok_or_else(|| invalid_params(admission))?;
    let mut reused = None;
    let result = match calling(handler, admission, exchange, &tool.target, call).run(answers).await
    {
        Ok(Ended::InputRequired(asked)) => return Ok(asked.into()),
        Ok(Ended::CannotAsk) => {
            failed("this tool has to ask something first, and the client cannot be asked")
        }
        Ok(Ended::Result(message, reuse)) => {
            if let Some(json) = unchanged(handler, tool, &message, admission)? {
                let meta = request_meta(reuse::meta(None, reuse), admission);
                return Ok(Outcome::Object { json, meta });
            }
            reused = reuse;
            let result =
                content::tool_result(&message).map_err(|status| failure(&status, admission))?;
            changed(tool, result, admission).await?
        }
        Err(Failure::Status(status)) if status::is_for_the_model(status.code()) => {
            log_failure(admission, &status);
            failed(status.message())
        }
        Err(failure) => return Err(client_error(failure, admission)),
    };
    let mut result = handler.guards.tool_result(&tool.item.name, result);
    result.meta = result.meta.and_then(|meta| shown_meta(handler, tool, meta));
    result.meta = reuse::meta(result.meta, reused);
    Ok(with_request_id(result, admission).into())
}

/// The JSON object that is a tool's result, where nothing on its way to the client changes it.
fn unchanged(
    handler: &Handler,
    tool: &ToolItem,
    message: &WireMessage,
    admission: &Admission,
) -> Result<Option<String>, ErrorData> {
    let is_changed = tool.transformation.is_some() || handler.guards.watch(&tool.item.name);
    if is_changed || content::is_rich(message.descriptor()) {
        return Ok(None);
    }
    let json = content::json_text(message).map_err(|status| failure(&status, admission))?;
    Ok(Some(json).filter(|json| json.starts_with('{')))
}

/// What clients see of the `_meta` of a tool's result.
fn shown_meta(handler: &Handler, tool: &ToolItem, meta: MetaObject) -> Option<MetaObject> {
    let mut meta = Value::Object(handler.catalogs.load().meta_keys().of_result(meta)?.0);
    handler.guards.value(&tool.item.name, &mut meta);
    match meta {
        Value::Object(meta) => Some(MetaObject(meta)),
        _ => None,
    }
}

/// A tool's result as the config file has it.
async fn changed(
    tool: &ToolItem,
    result: CallToolResult,
    admission: &Admission,
) -> Result<CallToolResult, ErrorData> {
    let Some(changes) = &tool.transformation else { return Ok(result) };
    changes.response(&tool.item.name, result, &admission.grant.principal).await.map_err(|failure| {
        let Admission { span, context, .. } = admission;
        let _entered = span.enter();
        let (request_id, tool_name) = (&context.request_id, &tool.item.name);
        tracing::error!(%request_id, tool = tool_name, %failure, "a response transformation failed");
        not_transformed(tool, Direction::Response, admission)
    })
}

pub(super) async fn read_resource(
    handler: &Handler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<ServerResult, ErrorData> {
    let uri = watch::uri(params);
    let Plan::ReadResource(resource, call) = &admission.plan else {
        return Err(no_resource(uri, admission));
    };
    let answers = answers(params).ok_or_else(|| invalid_params(admission))?;
    match calling(handler, admission, exchange, &resource.target, call).run(answers).await {
        Ok(Ended::InputRequired(asked)) => Ok(asked.into()),
        Ok(Ended::CannotAsk) => Err(cannot_ask(admission)),
        Ok(Ended::Result(message, reuse)) => {
            let read = content::resource_contents(&message, uri, resource.mime_type.as_deref());
            let mut result = read.map_err(|status| failure(&status, admission))?;
            (result.ttl_ms, result.cache_scope) = reuse::hints(reuse);
            let mut result = handler.guards.resource(&resource.item.name, result);
            result.meta = reuse::meta(result.meta, reuse);
            Ok(result.into())
        }
        Err(Failure::Status(status)) if status.code() == Code::NotFound => {
            log_failure(admission, &status);
            Err(no_resource(uri, admission))
        }
        Err(failure) => Err(client_error(failure, admission)),
    }
}

pub(super) async fn get_prompt(
    handler: &Handler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<ServerResult, ErrorData> {
    let Plan::GetPrompt(prompt, call) = &admission.plan else {
        return Err(error(ErrorCode::INVALID_PARAMS, "there is no prompt of this name", admission));
    };
    let answers = answers(params).ok_or_else(|| invalid_params(admission))?;
    match calling(handler, admission, exchange, &prompt.target, call).run(answers).await {
        Ok(Ended::InputRequired(asked)) => Ok(asked.into()),
        Ok(Ended::CannotAsk) => Err(cannot_ask(admission)),
        Ok(Ended::Result(message, _)) => {
            let result = content::prompt(&message).map_err(|status| failure(&status, admission))?;
            Ok(handler.guards.prompt(&prompt.item.name, result).into())
        }
        Err(failure) => Err(client_error(failure, admission)),
    }
}

pub(super) async fn complete(
    handler: &Handler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<ServerResult, ErrorData> {
    if !is_completion(params) {
        return Err(invalid_params(admission));
    }
    let mut found = match &admission.plan {
        Plan::Complete(completion, call) => {
            let calling = calling(handler, admission, exchange, &completion.target, call);
            match calling.run(Answers::default()).await {
                Ok(Ended::Result(message, _)) => {
                    let found = content::completion(&message);
                    let mut found = found.map_err(|status| failure(&status, admission))?;
                    handler.guards.texts(&completion.item.name, &mut found.values);
                    found
                }
                Ok(_) => return Err(cannot_ask(admission)),
                Err(failure) => return Err(client_error(failure, admission)),
            }
        }
        // Nothing completes this argument.
        _ => drawbridge_proto::mcp::v1::Completion::default(),
    };
    let more = found.values.len() > CompletionInfo::MAX_VALUES;
    found.values.truncate(CompletionInfo::MAX_VALUES);
    let info = CompletionInfo::with_pagination(found.values, found.total, found.has_more || more);
    let info = info.map_err(|error| failure(&Status::internal(error), admission))?;
    Ok(CompleteResult::new(info).into())
}

/// Whether these are parameters of `completion/complete`.
fn is_completion(params: &Value) -> bool {
    let is_text = |value: &Value| value.is_string();
    let (reference, argument) = (&params["ref"], &params["argument"]);
    let named = match reference["type"].as_str() {
        Some("ref/prompt") => &reference["name"],
        Some("ref/resource") => &reference["uri"],
        _ => return false,
    };
    [named, &argument["name"], &argument["value"]].into_iter().all(is_text)
}

/// What a client answers to an earlier call. None: it is not what it should be.
fn answers(params: &Value) -> Option<Answers> {
    let given = |name: &str| params.get(name).filter(|value| !value.is_null());
    let responses =
        given("inputResponses").map(|responses| serde_json::from_value(responses.clone()));
    let state = given("requestState").map(|state| state.as_str().map(ToOwned::to_owned).ok_or(()));
    Some(Answers { responses: responses.transpose().ok()?, state: state.transpose().ok()? })
}

fn calling<'a>(
    handler: &'a Handler,
    admission: &'a Admission,
    exchange: &'a Exchange,
    target: &'a Target,
    call: &'a Call,
) -> Calling<'a> {
    Calling { handler, admission, exchange, target, call }
}
