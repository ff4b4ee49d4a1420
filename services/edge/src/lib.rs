//! MCP over HTTP in, typed gRPC out.
//!
//! The edge is the only place that knows rmcp and the public side of HTTP. Every request passes the gate,
//! which says who is calling and whether they may; what passes is answered by the MCP handler, which calls
//! tool services by their descriptors.

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, middleware};
use drawbridge_sdk::{Admin, BindError, ChannelError, Listen, Running, Starting, Telemetry, connect};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use tower_http::catch_panic::CatchPanicLayer;
use url::Url;

use crate::{
    authorizer::Authorizer, catalog::Catalog, front::Front, gate::Gate, mcp::Handler,
    metadata::ProtectedResource,
};

pub use crate::catalog::{Namespace, NamespaceError};

mod authorizer;
mod catalog;
mod discovery;
mod front;
mod gate;
mod mcp;
mod metadata;
mod refusal;
mod upstream;

/// How the edge runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where to serve MCP.
    #[arg(long, default_value = "127.0.0.1:7180")]
    pub listen: Listen,

    /// Where to serve health and metrics.
    #[arg(long, default_value = "127.0.0.1:7181")]
    pub admin_listen: Listen,

    /// The URL under which clients know the MCP endpoint, with its path. It is the OAuth resource, and the
    /// only source of the URLs that the edge writes.
    #[arg(long, default_value = "http://127.0.0.1:7180/mcp")]
    pub public_url: Url,

    /// The authorization server that clients are sent to: the issuer of their tokens.
    #[arg(long)]
    pub authorization_server: String,

    /// Scopes that clients are told to ask for. Repeat, or separate by commas.
    #[arg(long, default_value = "mcp", value_delimiter = ',')]
    pub scopes: Vec<String>,

    /// Where auth serves gRPC.
    #[arg(long, default_value = "http://127.0.0.1:7110")]
    pub auth_url: Url,

    /// A tool service, as `namespace=URL`. Repeat, or separate by commas.
    #[arg(long = "service", value_name = "NAMESPACE=URL", value_delimiter = ',')]
    pub services: Vec<ServiceAddress>,

    /// An origin whose pages may call the edge, besides the public URL's own. Repeat, or separate by commas.
    #[arg(long = "allowed-origin", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,

    /// A `Host` that the edge answers to, besides the public URL's own. Repeat, or separate by commas.
    #[arg(long = "allowed-host", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,

    /// The largest request body, in bytes.
    #[arg(long, default_value_t = 4 * 1024 * 1024)]
    pub body_bytes_max: usize,

    /// How long a call may take when its tool says nothing, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    pub call_timeout_ms: u64,
}

/// A tool service and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its gRPC address.
    pub url: Url,
}

/// A text that is no `namespace=URL`.
#[derive(Debug, thiserror::Error)]
pub enum ServiceAddressError {
    /// The equals sign is missing.
    #[error("a tool service is given as namespace=URL")]
    Form,
    /// The namespace is not one.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The URL is not one.
    #[error("the URL is not one: {0}")]
    Url(#[from] url::ParseError),
}

impl FromStr for ServiceAddress {
    type Err = ServiceAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, url) = text.split_once('=').ok_or(ServiceAddressError::Form)?;
        Ok(Self { namespace: namespace.parse()?, url: url.parse()? })
    }
}

/// The edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address of the config is no gRPC address.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// An origin of the config is not one.
    #[error("{0:?} is no origin, such as https://app.example.com")]
    Origin(String),
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Starts the edge. It is ready once every tool service has been asked for its contract; one that is down
/// is asked again until it answers.
///
/// # Errors
/// When the config is not right or an address is taken.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<Running, StartError> {
    let starting = Starting::new();
    let catalog: Arc<ArcSwap<Catalog>> = Arc::default();
    let call_timeout = Duration::from_millis(config.call_timeout_ms);
    discovery::spawn(&starting, &config.services, &catalog, call_timeout)?;

    let resource =
        Arc::new(ProtectedResource::new(&config.public_url, &config.authorization_server, &config.scopes));
    let front = Front::new(&config, Arc::clone(&resource))?;
    let gate = Gate {
        authorizer: Authorizer::new(connect(&config.auth_url)?),
        catalog: Arc::clone(&catalog),
        resource: Arc::clone(&resource),
        body_bytes_max: config.body_bytes_max,
    };
    let router = router(&config, front, gate, Handler::new(catalog), &resource, &starting);
    let address: SocketAddr = starting.http(&config.listen, router)?;
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry))?)
}

fn router(
    config: &Config,
    front: Front,
    gate: Gate,
    handler: Handler,
    resource: &ProtectedResource,
    starting: &Starting,
) -> Router {
    // Every request is authorized for itself, so no session is kept: rmcp serves all revisions statelessly.
    // Host, Origin and size are checked at the front, before anybody is asked who is calling.
    let mcp_config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .disable_allowed_hosts()
        .with_max_request_body_bytes(config.body_bytes_max)
        .with_cancellation_token(starting.stopping());
    let service = StreamableHttpService::new(
        move || Ok(handler.clone()),
        Arc::new(NeverSessionManager::default()),
        mcp_config,
    );
    let path = config.public_url.path().trim_end_matches('/');
    let mcp = Router::new()
        .route_service(if path.is_empty() { "/" } else { path }, service.clone())
        .route_layer(middleware::from_fn_with_state(Arc::new(gate.clone()), gate::pass));
    let mcp = if path.is_empty() {
        mcp
    } else {
        let slashed = Router::new()
            .route_service(&format!("{path}/"), service)
            .route_layer(middleware::from_fn_with_state(Arc::new(gate), gate::pass));
        mcp.merge(slashed)
    };
    let cors = front.cors();
    mcp.merge(resource.routes())
        // From the inside out: browsers' preflights, Host and Origin, the request id; a panic is a 500.
        .layer(cors)
        .layer(middleware::from_fn_with_state(Arc::new(front), front::enter))
        .layer(CatchPanicLayer::new())
}
