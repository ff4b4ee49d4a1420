//! MCP: the server side of its Streamable HTTP transport in three revisions, and what each method does.
//!
//! [`server`] takes a request that was admitted and says how it is answered; [`session`] has what lasts longer
//! than a request; [`events`] and [`sse`] are what goes to a client before an answer.

#![expect(
    deprecated,
    reason = "SEP-2577 deprecates logging, sampling and roots; clients still have them"
)]

use std::sync::Arc;

use rmcp::{
    ErrorData,
    model::{
        DiscoverResult, ErrorCode, Implementation, JsonObject, LoggingLevel, ServerCapabilities,
        ServerConfig, ServerResult,
    },
};
use serde_json::Value;

use crate::{
    admission::{Admission, Message, Plan},
    catalog::Catalogs,
    traffic::cache::Cache,
    traffic::guard::Guards,
    traffic::queue::Calls,
};

use self::{
    errors::{error, invalid_params, no_method, not_planned},
    exchange::Exchange,
    revision::Revision,
    session::{Owner, Slots},
    wire::Outcome,
};

pub use self::{config::StreamsConfig, seal::SealError};
pub(crate) use self::{
    content::is_rich,
    seal::Seal,
    server::{Server, SessionBounds},
};

mod cached;
mod call;
mod config;
mod content;
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
mod reuse;
mod revision;
mod seal;
mod server;
mod session;
mod sse;
mod status;
mod watch;
mod wire;

/// Methods that the stateless revision no longer has.
const OLDER_METHODS: [&str; 5] =
    ["initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"];

/// Does what requests ask for.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) seal: Arc<Seal>,
    /// Who watches resources.
    pub(crate) watches: Arc<Slots>,
}

impl Handler {
    /// What a request asks for, once it was admitted.
    async fn handle(
        &self,
        admission: &Arc<Admission>,
        message: &Message,
        exchange: &Exchange,
    ) -> Result<Outcome, ErrorData> {
        let params = &message.params;
        let method = message.method.as_str();
        if exchange.is_stateless() && OLDER_METHODS.contains(&method) {
            return Err(no_method(admission));
        }
        if method == "tools/call" {
            return results::call_tool(self, params, admission, exchange).await;
        }
        let result = match method {
            "tools/list" => lists::tools(params, admission),
            "resources/list" => lists::resources(self, params, admission, exchange).await,
            "resources/templates/list" => lists::resource_templates(params, admission),
            "resources/read" => results::read_resource(self, params, admission, exchange).await,
            "prompts/list" => lists::prompts(params, admission),
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
                let info = info(&admission.plan);
                let result = DiscoverResult::from_server_info(Revision::SERVED.to_vec(), info);
                Ok(ServerResult::DiscoverResult(result))
            }
            _ => Err(no_method(admission)),
        };
        result.map(Outcome::from)
    }

    fn subscribe(
        &self,
        params: &Value,
        admission: &Arc<Admission>,
        exchange: &Exchange,
    ) -> Result<ServerResult, ErrorData> {
        let Plan::Watch(watches) = &admission.plan else { return Err(not_planned(admission)) };
        let refused = |text| error(ErrorCode::INVALID_REQUEST, text, admission);
        let session = exchange.session.as_ref();
        let session = session
            .ok_or_else(|| refused("resources are watched in a session; initialize first"))?;
        for watch in watches.iter() {
            let owner = Owner::of(&admission.grant.principal);
            let slot = self
                .watches
                .take(owner)
                .map_err(|_| refused("as many resources are watched as may be"))?;
            let ending = session.subscribe(watch::uri(params));
            let ending = ending.ok_or_else(|| refused("this session watches as much as it may"))?;
            watch::in_session(session, admission, watch, ending, slot);
        }
        Ok(ServerResult::empty(()))
    }
}

/// Who watches resources, and how many.
pub(crate) fn watches(config: &StreamsConfig) -> Arc<Slots> {
    Slots::new("watches", config.watches_max, config.watches_per_principal_max)
}

/// What the edge says of itself, and of its services to this caller.
fn info(plan: &Plan) -> ServerConfig {
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
    if let Plan::Introduce { instructions, pages } = plan {
        info.instructions = Some(instructions.clone()).filter(|text| !text.is_empty());
        // MCP Apps (SEP-1865). It has no settings of a server (SEP-2133).
        let extensions =
            pages.then(|| ("io.modelcontextprotocol/ui".to_owned(), JsonObject::new()));
        info.capabilities.extensions = extensions.map(|extension| [extension].into());
    }
    info
}
