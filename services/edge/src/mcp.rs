//! Answers MCP requests that have passed the gate.

#![expect(deprecated, reason = "SEP-2577 deprecates logging, sampling and roots; clients still have them")]

use std::{borrow::Cow, sync::Arc};

use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, CustomRequest,
        CustomResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, Implementation,
        ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
        ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter,
        Tool, UnsubscribeRequestParams,
    },
    service::{NotificationContext, RequestContext, SubscriptionContext},
};

use crate::{
    authorizer::Authorizer,
    cache::Cache,
    catalog::Catalogs,
    gate::{Admission, OTHER, Plan},
    guard::Guards,
    overload::Calls,
};

use self::{
    errors::{error, no_method, not_planned},
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
mod lists;
mod logging;
mod page;
mod results;
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
        lists::tools(request.as_ref(), admission(&context)?)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        results::call_tool(self, request, &context).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        lists::resources(request.as_ref(), admission(&context)?)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        lists::resource_templates(request.as_ref(), admission(&context)?)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        results::read_resource(self, request, &context).await
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
        lists::prompts(request.as_ref(), admission(&context)?)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        results::get_prompt(self, request, &context).await
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        context: Context,
    ) -> Result<CompleteResult, ErrorData> {
        results::complete(self, &context).await
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

/// What the gate admitted. A request without it has not passed the gate, and gets nothing.
fn admission(context: &Context) -> Result<&Admission, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    parts
        .and_then(|parts| parts.extensions.get::<Admission>())
        .ok_or_else(|| ErrorData::internal_error("the request has not passed the gate", None))
}
