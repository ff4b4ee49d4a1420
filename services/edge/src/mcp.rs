//! Answers MCP requests that have passed the gate.

#![expect(deprecated, reason = "SEP-2577 deprecates logging, sampling and roots; clients still have them")]

use std::{borrow::Cow, sync::Arc};

use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams,
        CompleteResult, CompletionInfo, CustomRequest, CustomResult, ErrorCode, GetPromptRequestParams,
        GetPromptResponse, Implementation, ListPromptsResult, ListResourceTemplatesResult,
        ListResourcesResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
        ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
        SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
    },
    service::{NotificationContext, RequestContext, SubscriptionContext},
};
use serde_json::json;
use tonic::Status;

use crate::{
    authorizer::Authorizer,
    cache::Cache,
    catalog::{Catalogs, ResourceItem, ShownResource, ToolItem},
    gate::{Admission, OTHER, Plan},
    guard::Guards,
    overload::Calls,
    transform::Direction,
    upstream::Target,
};

use self::{
    call::{Answers, Calling, Ended, Failure, failure, log_failure},
    errors::{
        cannot_ask, client_error, error, failed, no_method, no_resource, not_planned, not_transformed,
        with_request_id, wrong_arguments, wrong_cursor,
    },
    logging::WantedLevel,
    watch::{Listener, Subscriptions},
};

pub use self::seal::SealError;
pub(crate) use self::{content::is_rich, seal::Seal};

mod cached;
mod call;
mod changes;
mod content;
mod errors;
mod interaction;
mod json;
mod logging;
mod page;
mod reuse;
mod seal;
mod status;
mod watch;

/// Protocol revisions that are served, oldest first.
const REVISIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28];
/// Methods that the stateless revision no longer has.
const OLDER_METHODS: [&str; 5] =
    ["initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"];

/// How long a client may keep a list, in milliseconds. A change of the catalog is told; one of policy is not.
const LIST_TTL_MS: Option<u64> = Some(30_000);
/// Lists are filtered for each caller.
const LIST_SCOPE: Option<CacheScope> = Some(CacheScope::Private);

type Context = RequestContext<RoleServer>;

/// The handler of one session, or of one request without a session.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    catalogs: Arc<Catalogs>,
    authorizer: Authorizer,
    calls: Arc<Calls>,
    cache: Arc<Cache>,
    guards: Arc<Guards>,
    seal: Arc<Seal>,
    level: WantedLevel,
    subscriptions: Subscriptions,
}

impl Handler {
    pub(crate) fn new(
        catalogs: Arc<Catalogs>,
        authorizer: Authorizer,
        calls: Arc<Calls>,
        cache: Arc<Cache>,
        guards: Arc<Guards>,
        seal: Seal,
    ) -> Self {
        let (level, subscriptions) = (WantedLevel::default(), Subscriptions::default());
        Self { catalogs, authorizer, calls, cache, guards, seal: Arc::new(seal), level, subscriptions }
    }

    /// A handler for another session.
    pub(crate) fn for_session(&self) -> Self {
        let (level, subscriptions) = (WantedLevel::default(), Subscriptions::default());
        Self { level, subscriptions, ..self.clone() }
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        let mut info = ServerConfig::new(capabilities);
        info.server_info = Implementation::new("drawbridge", env!("CARGO_PKG_VERSION"));
        info
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(&REVISIONS)
    }

    /// For rmcp's check of `Mcp-Param-*` headers against the body (SEP-2243).
    fn get_tool(&self, name: &str) -> Option<Tool> {
        Some(self.catalogs.load().tool(name)?.tool.clone())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        changes::tell_session(context.peer, &self.catalogs);
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let admission = admission(context.request_context())?;
        let Plan::Watch(watches) = &admission.plan else { return Err(not_planned(admission)) };
        let listener = Listener::Subscriber(context.sink());
        let watching =
            watches.iter().map(|watch| watch::follow(&self.authorizer, admission, watch, listener));
        let telling = async {
            tokio::join!(
                changes::tell_subscriber(context.accepted(), context.sink(), &self.catalogs),
                futures::future::join_all(watching)
            )
        };
        tokio::select! {
            _ = telling => {}
            () = context.cancelled() => {}
        }
        Ok(())
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        self.level.set(request.level);
        Ok(())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        let admission = admission(&context)?;
        let Plan::ListTools(tools) = &admission.plan else { return Err(not_planned(admission)) };
        let tools = tools.iter().map(|item| (item.tool.name.as_ref(), &item.tool));
        let (tools, next) = page::of(tools, request.as_ref()).ok_or_else(|| wrong_cursor(admission))?;
        let mut result = ListToolsResult::with_all_items(tools);
        (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, LIST_TTL_MS, LIST_SCOPE);
        Ok(result)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let admission = admission(&context)?;
        let (tool, call) = match &admission.plan {
            Plan::CallTool(tool, call) => (tool, call),
            Plan::WrongArguments(tool, wrong) => {
                let wrong = self.guards.tool_result(&tool.item.name, wrong_arguments(tool, wrong));
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
        let result = match self.calling(admission, &context, &tool.target, call).run(answers).await {
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
        let mut result = self.guards.tool_result(&tool.item.name, result);
        result.meta = reuse::meta(result.meta, reused);
        Ok(with_request_id(result, admission).into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        let admission = admission(&context)?;
        let fixed = planned_resources(admission)?.iter().filter_map(|item| match &item.shown {
            ShownResource::Fixed(resource) => Some((item.item.name.as_str(), resource)),
            ShownResource::Template(_) => None,
        });
        let (fixed, next) = page::of(fixed, request.as_ref()).ok_or_else(|| wrong_cursor(admission))?;
        let mut result = ListResourcesResult::with_all_items(fixed);
        (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, LIST_TTL_MS, LIST_SCOPE);
        Ok(result)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let admission = admission(&context)?;
        let templates = planned_resources(admission)?.iter().filter_map(|item| match &item.shown {
            ShownResource::Template(template) => Some((item.item.name.as_str(), template)),
            ShownResource::Fixed(_) => None,
        });
        let (templates, next) =
            page::of(templates, request.as_ref()).ok_or_else(|| wrong_cursor(admission))?;
        let mut result = ListResourceTemplatesResult::with_all_items(templates);
        (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, LIST_TTL_MS, LIST_SCOPE);
        Ok(result)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let admission = admission(&context)?;
        let Plan::ReadResource(resource, call) = &admission.plan else {
            return Err(no_resource(&request.uri, admission));
        };
        let answers = Answers { responses: request.input_responses, state: request.request_state };
        match self.calling(admission, &context, &resource.target, call).run(answers).await {
            Ok(Ended::InputRequired(asked)) => Ok(asked.into()),
            Ok(Ended::CannotAsk) => Err(cannot_ask(admission)),
            Ok(Ended::Result(message, reuse)) => {
                let read = content::resource_contents(&message, &request.uri, resource.mime_type.as_deref());
                let mut result = read.map_err(|status| failure(&status, admission))?;
                (result.ttl_ms, result.cache_scope) = reuse::hints(reuse);
                let mut result = self.guards.resource(&resource.item.name, result);
                result.meta = reuse::meta(result.meta, reuse);
                Ok(result.into())
            }
            Err(Failure::Status(status)) if status.code() == tonic::Code::NotFound => {
                log_failure(admission, &status);
                Err(no_resource(&request.uri, admission))
            }
            Err(failure) => Err(client_error(failure, admission)),
        }
    }

    async fn subscribe(&self, request: SubscribeRequestParams, context: Context) -> Result<(), ErrorData> {
        let admission = admission(&context)?;
        let Plan::Watch(watches) = &admission.plan else { return Err(not_planned(admission)) };
        for watch in watches.iter() {
            let ending = self.subscriptions.add(&request.uri).ok_or_else(|| {
                error(ErrorCode::INVALID_REQUEST, "this session watches as much as it may", admission)
            })?;
            let (authorizer, admission, watch) = (self.authorizer.clone(), admission.clone(), watch.clone());
            let peer = context.peer.clone();
            tokio::spawn(async move {
                let following = watch::follow(&authorizer, &admission, &watch, Listener::Session(&peer));
                ending.run_until_cancelled(following).await;
            });
        }
        Ok(())
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        self.subscriptions.remove(&request.uri);
        Ok(())
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        let admission = admission(&context)?;
        let Plan::ListPrompts(prompts) = &admission.plan else { return Err(not_planned(admission)) };
        let prompts = prompts.iter().map(|item| (item.item.name.as_str(), &item.prompt));
        let (prompts, next) = page::of(prompts, request.as_ref()).ok_or_else(|| wrong_cursor(admission))?;
        let mut result = ListPromptsResult::with_all_items(prompts);
        (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, LIST_TTL_MS, LIST_SCOPE);
        Ok(result)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let admission = admission(&context)?;
        let Plan::GetPrompt(prompt, call) = &admission.plan else {
            return Err(error(ErrorCode::INVALID_PARAMS, "there is no prompt of this name", admission));
        };
        let answers = Answers { responses: request.input_responses, state: request.request_state };
        match self.calling(admission, &context, &prompt.target, call).run(answers).await {
            Ok(Ended::InputRequired(asked)) => Ok(asked.into()),
            Ok(Ended::CannotAsk) => Err(cannot_ask(admission)),
            Ok(Ended::Result(message, _)) => {
                let result = content::prompt(&message).map_err(|status| failure(&status, admission))?;
                Ok(self.guards.prompt(&prompt.item.name, result).into())
            }
            Err(failure) => Err(client_error(failure, admission)),
        }
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        context: Context,
    ) -> Result<CompleteResult, ErrorData> {
        let admission = admission(&context)?;
        let mut found = match &admission.plan {
            Plan::Complete(completion, call) => {
                match self
                    .calling(admission, &context, &completion.target, call)
                    .run(Answers::default())
                    .await
                {
                    Ok(Ended::Result(message, _)) => {
                        let mut found = content::completion(&message);
                        self.guards.texts(&completion.item.name, &mut found.values);
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

    async fn on_custom_request(&self, _: CustomRequest, context: Context) -> Result<CustomResult, ErrorData> {
        let admission = admission(&context)?;
        let version = context.protocol_version();
        let is_older =
            version.is_none_or(|version| version.as_str() < ProtocolVersion::V_2026_07_28.as_str());
        // rmcp takes a known method whose parameters it cannot read for an unknown one.
        Err(match admission.method {
            OTHER => no_method(admission),
            method if OLDER_METHODS.contains(&method) && !is_older => no_method(admission),
            _ => error(ErrorCode::INVALID_PARAMS, "the parameters are not this method's", admission),
        })
    }
}

impl Handler {
    fn calling<'a>(
        &'a self,
        admission: &'a Admission,
        context: &'a Context,
        target: &'a Target,
        call: &'a crate::gate::Call,
    ) -> Calling<'a> {
        Calling { handler: self, admission, context, target, call }
    }
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

/// What the gate admitted. A request without it has not passed the gate, and gets nothing.
fn admission(context: &Context) -> Result<&Admission, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    parts
        .and_then(|parts| parts.extensions.get::<Admission>())
        .ok_or_else(|| ErrorData::internal_error("the request has not passed the gate", None))
}

fn planned_resources(admission: &Admission) -> Result<&[Arc<ResourceItem>], ErrorData> {
    match &admission.plan {
        Plan::ListResources(resources) => Ok(resources),
        _ => Err(not_planned(admission)),
    }
}
