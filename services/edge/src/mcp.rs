//! Answers MCP requests that have passed the gate.

use std::{borrow::Cow, sync::Arc};

use arc_swap::ArcSwap;
use http::request::Parts;
use prost_reflect::DynamicMessage;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomRequest, CustomResult,
        ErrorCode, Implementation, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, ReadResourceRequestParams,
        ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tonic::Status;
use tracing::Instrument as _;

use crate::{
    catalog::{Catalog, ResourceItem, ShownResource, ToolItem},
    gate::{Admission, Call, OTHER, Plan},
    upstream::Event,
};

mod content;
mod status;

/// Protocol revisions that are served, oldest first.
const REVISIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28];

/// The `_meta` key of the request id.
const META_REQUEST_ID: &str = "drawbridge/requestId";

type Context = RequestContext<RoleServer>;

#[derive(Clone, Debug)]
pub(crate) struct Handler {
    catalog: Arc<ArcSwap<Catalog>>,
}

impl Handler {
    pub(crate) fn new(catalog: Arc<ArcSwap<Catalog>>) -> Self {
        Self { catalog }
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        let mut info = ServerConfig::new(capabilities);
        info.server_info = Implementation::new("drawbridge", env!("CARGO_PKG_VERSION"));
        info
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(&REVISIONS)
    }

    /// For rmcp's check of `Mcp-Param-*` headers against the body (SEP-2243).
    fn get_tool(&self, name: &str) -> Option<Tool> {
        Some(self.catalog.load().tool(name)?.tool.clone())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        let admission = admission(&context)?;
        let Plan::ListTools(tools) = &admission.plan else { return Err(not_planned(admission)) };
        Ok(ListToolsResult::with_all_items(tools.iter().map(|item| item.tool.clone()).collect()))
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let admission = admission(&context)?;
        let result = match &admission.plan {
            Plan::CallTool(tool, call) => call_tool(admission, tool, call, &context).await?,
            Plan::WrongArguments(tool, wrong) => {
                failed(format!("invalid arguments for {}: {wrong}", tool.item.name))
            }
            // The gate found no such tool.
            _ => return Err(error(ErrorCode::INVALID_PARAMS, "there is no tool of this name", admission)),
        };
        Ok(with_request_id(result, admission).into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        let admission = admission(&context)?;
        let Plan::ListResources(resources) = &admission.plan else { return Err(not_planned(admission)) };
        let fixed = resources.iter().filter_map(|item| match &item.shown {
            ShownResource::Fixed(resource) => Some(resource.clone()),
            ShownResource::Template(_) => None,
        });
        Ok(ListResourcesResult::with_all_items(fixed.collect()))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let admission = admission(&context)?;
        let Plan::ListResources(resources) = &admission.plan else { return Err(not_planned(admission)) };
        let templates = resources.iter().filter_map(|item| match &item.shown {
            ShownResource::Template(template) => Some(template.clone()),
            ShownResource::Fixed(_) => None,
        });
        Ok(ListResourceTemplatesResult::with_all_items(templates.collect()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let admission = admission(&context)?;
        match &admission.plan {
            Plan::ReadResource(resource, call) => {
                Ok(read_resource(admission, resource, call, request.uri).await?.into())
            }
            _ => Err(error(ErrorCode::RESOURCE_NOT_FOUND, "there is no resource of this URI", admission)),
        }
    }

    async fn on_custom_request(&self, _: CustomRequest, context: Context) -> Result<CustomResult, ErrorData> {
        let admission = admission(&context)?;
        // rmcp takes a known method whose parameters it cannot read for an unknown one.
        Err(match admission.method {
            OTHER => error(ErrorCode::METHOD_NOT_FOUND, "there is no method of this name", admission),
            _ => error(ErrorCode::INVALID_PARAMS, "the parameters are not this method's", admission),
        })
    }
}

/// What the gate admitted. A request without it has not passed the gate, and gets nothing.
fn admission(context: &Context) -> Result<&Admission, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    parts
        .and_then(|parts| parts.extensions.get::<Admission>())
        .ok_or_else(|| ErrorData::internal_error("the request has not passed the gate", None))
}

async fn call_tool(
    admission: &Admission,
    tool: &ToolItem,
    call: &Call,
    context: &Context,
) -> Result<CallToolResult, ErrorData> {
    let calling = call_to_the_end(admission, tool, call, context);
    let calling = async {
        tokio::select! {
            result = calling => result,
            // Dropping the call resets its stream, which the service sees.
            () = context.ct.cancelled() => Err(Status::cancelled("the client cancelled")),
        }
    };
    match calling.instrument(admission.span.clone()).await {
        Ok(message) => Ok(content::tool_result(&message).map_err(|status| failure(&status, admission))?),
        Err(status) if status::is_for_the_model(status.code()) => {
            log_failure(admission, &status);
            Ok(failed(status.message().to_owned()))
        }
        Err(status) => Err(failure(&status, admission)),
    }
}

async fn call_to_the_end(
    admission: &Admission,
    tool: &ToolItem,
    call: &Call,
    context: &Context,
) -> Result<DynamicMessage, Status> {
    let progress_token = context.meta.get_progress_token().filter(|_| admission.streams);
    let token = call.token.expose_secret();
    let mut answering = tool.target.begin(&admission.context, token, call.message.clone()).await?;
    loop {
        match answering.next().await? {
            Event::Result(message) => return Ok(message),
            Event::Progress(progress) => {
                let Some(token) = &progress_token else { continue };
                let mut param = ProgressNotificationParam::new(token.clone(), progress.progress);
                param.total = progress.total;
                param.message = Some(progress.message).filter(|message| !message.is_empty());
                // A client that has gone also cancels the call; there is nobody to tell.
                let _ = context.peer.notify_progress(param).await;
            }
        }
    }
}

async fn read_resource(
    admission: &Admission,
    resource: &ResourceItem,
    call: &Call,
    uri: String,
) -> Result<ReadResourceResult, ErrorData> {
    let reading = async {
        let token = call.token.expose_secret();
        let mut answering = resource.target.begin(&admission.context, token, call.message.clone()).await?;
        loop {
            if let Event::Result(message) = answering.next().await? {
                return Ok(message);
            }
        }
    };
    let read: Result<DynamicMessage, Status> = reading.instrument(admission.span.clone()).await;
    read.and_then(|message| content::resource_contents(&message, &uri, resource.mime_type.as_deref()))
        .map(ReadResourceResult::new)
        .map_err(|status| failure(&status, admission))
}

/// A result that tells the model what went wrong.
fn failed(message: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(message)])
}

fn failure(status: &Status, admission: &Admission) -> ErrorData {
    log_failure(admission, status);
    let (code, message, mut data) = status::to_json_rpc(status);
    data["requestId"] = json!(admission.context.request_id.as_str());
    ErrorData::new(code, message, Some(data))
}

fn log_failure(admission: &Admission, status: &Status) {
    let Admission { span, context, .. } = admission;
    span.record("error.type", format!("{:?}", status.code()));
    let subject = &admission.principal.subject;
    let (code, message) = (status.code(), status.message());
    let _entered = span.enter();
    if status::is_for_the_model(code) {
        tracing::info!(request_id = %context.request_id, subject, ?code, message, "a call failed");
    } else {
        span.record("otel.status_code", "ERROR");
        tracing::warn!(request_id = %context.request_id, subject, ?code, message, "a call failed");
    }
}

fn error(code: ErrorCode, message: &'static str, admission: &Admission) -> ErrorData {
    let data = json!({ "requestId": admission.context.request_id.as_str() });
    ErrorData::new(code, message, Some(data))
}

/// The gate and rmcp took one message for two things. Nothing is done.
fn not_planned(admission: &Admission) -> ErrorData {
    tracing::error!(request_id = %admission.context.request_id, "the gate admitted something else");
    error(ErrorCode::INTERNAL_ERROR, "internal error", admission)
}

fn with_request_id(mut result: CallToolResult, admission: &Admission) -> CallToolResult {
    let mut meta = result.meta.take().unwrap_or_default();
    meta.insert(META_REQUEST_ID.to_owned(), Value::from(admission.context.request_id.as_str()));
    result.meta = Some(meta);
    result
}
