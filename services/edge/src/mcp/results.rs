//! Calls as MCP has them: what the client gets for each end that a call can have.

use rmcp::{
    ErrorData,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, CompleteResult, CompletionInfo, ErrorCode,
        GetPromptRequestParams, GetPromptResponse, ReadResourceRequestParams, ReadResourceResponse,
    },
};
use tonic::{Code, Status};

use super::{
    Context, Handler, admission,
    call::{Answers, Calling, Ended, Failure, failure, log_failure},
    content,
    errors::{
        cannot_ask, client_error, error, failed, no_resource, not_transformed, with_request_id,
        wrong_arguments,
    },
    reuse, status,
};
use crate::{
    catalog::ToolItem,
    gate::{Admission, Call, Plan},
    transform::Direction,
    upstream::Target,
};

pub(super) async fn call_tool(
    handler: &Handler,
    request: CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    let admission = admission(context)?;
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
        _ => return Err(error(ErrorCode::INVALID_PARAMS, "there is no tool of this name", admission)),
    };
    let answers = Answers { responses: request.input_responses, state: request.request_state };
    let mut reused = None;
    let result = match calling(handler, admission, context, &tool.target, call).run(answers).await {
        Ok(Ended::InputRequired(asked)) => return Ok(asked.into()),
        Ok(Ended::CannotAsk) => {
            failed("this tool has to ask something first, and the client cannot be asked")
        }
        Ok(Ended::Result(message, reuse)) => {
            reused = reuse;
            let result = content::tool_result(&message).map_err(|status| failure(&status, admission))?;
            changed(tool, result, admission).await?
        }
        Err(Failure::Status(status)) if status::is_for_the_model(status.code()) => {
            log_failure(admission, &status);
            failed(status.message())
        }
        Err(failure) => return Err(client_error(failure, admission)),
    };
    let mut result = handler.guards.tool_result(&tool.item.name, result);
    result.meta = reuse::meta(result.meta, reused);
    Ok(with_request_id(result, admission).into())
}

/// A tool's result as the config file has it.
async fn changed(
    tool: &ToolItem,
    result: CallToolResult,
    admission: &Admission,
) -> Result<CallToolResult, ErrorData> {
    let Some(changes) = &tool.transformation else { return Ok(result) };
    changes.response(&tool.item.name, result, &admission.principal).await.map_err(|failure| {
        let Admission { span, context, .. } = admission;
        let _entered = span.enter();
        let (request_id, tool_name) = (&context.request_id, &tool.item.name);
        tracing::error!(%request_id, tool = tool_name, %failure, "a response transformation failed");
        not_transformed(tool, Direction::Response, admission)
    })
}

pub(super) async fn read_resource(
    handler: &Handler,
    request: ReadResourceRequestParams,
    context: &Context,
) -> Result<ReadResourceResponse, ErrorData> {
    let admission = admission(context)?;
    let Plan::ReadResource(resource, call) = &admission.plan else {
        return Err(no_resource(&request.uri, admission));
    };
    let answers = Answers { responses: request.input_responses, state: request.request_state };
    match calling(handler, admission, context, &resource.target, call).run(answers).await {
        Ok(Ended::InputRequired(asked)) => Ok(asked.into()),
        Ok(Ended::CannotAsk) => Err(cannot_ask(admission)),
        Ok(Ended::Result(message, reuse)) => {
            let read = content::resource_contents(&message, &request.uri, resource.mime_type.as_deref());
            let mut result = read.map_err(|status| failure(&status, admission))?;
            (result.ttl_ms, result.cache_scope) = reuse::hints(reuse);
            let mut result = handler.guards.resource(&resource.item.name, result);
            result.meta = reuse::meta(result.meta, reuse);
            Ok(result.into())
        }
        Err(Failure::Status(status)) if status.code() == Code::NotFound => {
            log_failure(admission, &status);
            Err(no_resource(&request.uri, admission))
        }
        Err(failure) => Err(client_error(failure, admission)),
    }
}

pub(super) async fn get_prompt(
    handler: &Handler,
    request: GetPromptRequestParams,
    context: &Context,
) -> Result<GetPromptResponse, ErrorData> {
    let admission = admission(context)?;
    let Plan::GetPrompt(prompt, call) = &admission.plan else {
        return Err(error(ErrorCode::INVALID_PARAMS, "there is no prompt of this name", admission));
    };
    let answers = Answers { responses: request.input_responses, state: request.request_state };
    match calling(handler, admission, context, &prompt.target, call).run(answers).await {
        Ok(Ended::InputRequired(asked)) => Ok(asked.into()),
        Ok(Ended::CannotAsk) => Err(cannot_ask(admission)),
        Ok(Ended::Result(message, _)) => {
            let result = content::prompt(&message).map_err(|status| failure(&status, admission))?;
            Ok(handler.guards.prompt(&prompt.item.name, result).into())
        }
        Err(failure) => Err(client_error(failure, admission)),
    }
}

pub(super) async fn complete(handler: &Handler, context: &Context) -> Result<CompleteResult, ErrorData> {
    let admission = admission(context)?;
    let mut found = match &admission.plan {
        Plan::Complete(completion, call) => {
            let calling = calling(handler, admission, context, &completion.target, call);
            match calling.run(Answers::default()).await {
                Ok(Ended::Result(message, _)) => {
                    let mut found = content::completion(&message);
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
    info.map(CompleteResult::new).map_err(|error| failure(&Status::internal(error), admission))
}

fn calling<'a>(
    handler: &'a Handler,
    admission: &'a Admission,
    context: &'a Context,
    target: &'a Target,
    call: &'a Call,
) -> Calling<'a> {
    Calling { handler, admission, context, target, call }
}
