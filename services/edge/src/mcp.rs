//! The MCP server: its Streamable HTTP transport in three revisions, and the methods.
//!
//! [`server`] turns an admitted message into an HTTP response; [`session`] has the state that
//! outlives a request; [`events`] and [`sse`] carry messages to a client before its response.

#![expect(
    deprecated,
    reason = "SEP-2577 deprecates logging, sampling and roots; clients still use them"
)]

use std::sync::Arc;

use drawbridge_runtime::ServiceTasks;
use rmcp::{
    ErrorData,
    model::{
        DiscoverResult, ErrorCode, Implementation, JsonObject, LoggingLevel, ServerCapabilities,
        ServerConfig, ServerResult,
    },
};
use serde_json::Value;

use crate::{
    admitted::{Admission, Message, Plan},
    catalog::Catalogs,
    metrics::WATCHES,
    traffic::cache::Cache,
    traffic::guard::Guards,
    traffic::queue::CallLimiter,
};

use self::{
    errors::{error, invalid_params, missing_plan, unknown_method, unread},
    exchange::Exchange,
    revision::ProtocolRevision,
    session::{SlotOwner, Slots},
    wire::MethodOutcome,
};

pub use self::{
    config::StreamsConfig,
    status::{GrpcErrorCode, grpc_error_codes},
};
pub(crate) use self::{
    seal::Seal,
    server::{McpServer, SESSION_ID, SessionLimits},
};

mod cache_status;
mod cached;
mod call;
mod capabilities;
mod config;
mod content;
mod ending;
mod errors;
mod events;
mod exchange;
mod interaction;
mod json;
mod listen;
mod listing;
mod lists;
mod logging;
mod page;
mod replicas;
mod results;
mod revision;
mod seal;
mod server;
mod session;
mod sse;
mod status;
mod watch;
mod wire;

/// Methods that the stateless revision has removed.
const SESSION_METHODS: [&str; 5] =
    ["initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"];

/// Handles the methods of MCP.
#[derive(Clone, Debug)]
pub(crate) struct MethodHandler {
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) calls: Arc<CallLimiter>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) seal: Arc<Seal>,
    /// Bounds the watched resources.
    pub(crate) watch_slots: Arc<Slots>,
    /// Runs what outlives its request.
    pub(crate) tasks: ServiceTasks,
}

impl MethodHandler {
    /// Handles an admitted request.
    async fn handle(
        &self,
        admission: &Arc<Admission>,
        message: &Message,
        exchange: &Exchange,
    ) -> Result<MethodOutcome, ErrorData> {
        let params = &message.params;
        let method = message.method.as_str();
        if exchange.is_stateless() && SESSION_METHODS.contains(&method) {
            return Err(unknown_method(admission));
        }
        if let Plan::Unread = admission.plan {
            return Err(unread(admission));
        }
        match method {
            "tools/call" => return results::call_tool(self, params, admission, exchange).await,
            "tools/list" => return lists::list_tools(params, admission),
            _ => {}
        }
        let result = match method {
            "resources/list" => lists::list_resources(self, params, admission, exchange).await,
            "resources/templates/list" => lists::list_resource_templates(params, admission),
            "resources/read" => results::read_resource(self, params, admission, exchange).await,
            "prompts/list" => lists::list_prompts(params, admission),
            "prompts/get" => results::get_prompt(self, params, admission, exchange).await,
            "completion/complete" => results::complete(self, params, admission, exchange).await,
            "ping" => Ok(ServerResult::empty(())),
            "logging/setLevel" => {
                let level = params.get("level").cloned().unwrap_or_default();
                let level: LoggingLevel =
                    serde_json::from_value(level).map_err(|_| invalid_params(admission))?;
                exchange.session.iter().for_each(|session| session.set_level(level));
                Ok(ServerResult::empty(()))
            }
            "resources/subscribe" => self.subscribe(params, admission, exchange),
            "resources/unsubscribe" => {
                exchange.session.iter().for_each(|session| session.unsubscribe(watch::uri(params)));
                Ok(ServerResult::empty(()))
            }
            "server/discover" if exchange.is_stateless() => {
                let info = server_info(&admission.plan);
                let result =
                    DiscoverResult::from_server_info(ProtocolRevision::SUPPORTED.to_vec(), info);
                Ok(ServerResult::DiscoverResult(result))
            }
            _ => Err(unknown_method(admission)),
        };
        result.map(MethodOutcome::from)
    }

    fn subscribe(
        &self,
        params: &Value,
        admission: &Arc<Admission>,
        exchange: &Exchange,
    ) -> Result<ServerResult, ErrorData> {
        let Plan::Watch(watches) = &admission.plan else { return Err(missing_plan(admission)) };
        let reject = |text| error(ErrorCode::INVALID_REQUEST, text, admission);
        let session = exchange.session.as_ref();
        let session = session
            .ok_or_else(|| reject("resource subscriptions need a session; initialize first"))?;
        for watch in watches.iter() {
            let owner = SlotOwner::of(&admission.grant.principal);
            let slot = self
                .watch_slots
                .acquire(owner)
                .map_err(|_| reject("too many watched resources; unsubscribe from one first"))?;
            let cancelled = session.subscribe(watch::uri(params));
            let cancelled = cancelled.ok_or_else(|| {
                reject("this session has too many subscriptions; unsubscribe from one first")
            })?;
            watch::spawn_in_session(&self.tasks, session, admission, watch, cancelled, slot);
        }
        Ok(ServerResult::empty(()))
    }
}

/// The bounds of watched resources.
pub(crate) fn watch_slots(config: &StreamsConfig) -> Arc<Slots> {
    let (max, per_principal_max) = (config.watches_max, config.watches_per_principal_max);
    Slots::new("watches", max, per_principal_max, WATCHES.get())
}

/// The server's capabilities, and the instructions of the services that the caller may use.
fn server_info(plan: &Plan) -> ServerConfig {
    let mut capabilities = ServerCapabilities::default();
    capabilities.completions = Some(JsonObject::new());
    capabilities.logging = Some(JsonObject::new());
    let prompts = capabilities.prompts.get_or_insert_default();
    prompts.list_changed = Some(true);
    let resources = capabilities.resources.get_or_insert_default();
    resources.list_changed = Some(true);
    resources.subscribe = Some(true);
    let tools = capabilities.tools.get_or_insert_default();
    tools.list_changed = Some(true);
    let mut info = ServerConfig::new(capabilities);
    info.server_info = Implementation::new("drawbridge", env!("CARGO_PKG_VERSION"));
    if let Plan::Describe { instructions, pages } = plan {
        info.instructions = Some(instructions.clone()).filter(|text| !text.is_empty());
        // MCP Apps (SEP-1865). A server has no settings for it (SEP-2133).
        let extensions =
            pages.then(|| ("io.modelcontextprotocol/ui".to_owned(), JsonObject::new()));
        info.capabilities.extensions = extensions.map(|extension| [extension].into());
    }
    info
}
