//! Finds, reads, summarizes and answers the support tickets of the caller's company.

use std::net::{Ipv4Addr, SocketAddr};

use drawbridge_proto::tickets::v1::ticket_service_server::TicketServiceServer;
use drawbridge_sdk::{
    Admin, BindError, GrpcServer, Listen, Running, Starting, Telemetry,
    credentials::{CredentialsConfig, SetupError},
    identity::{Verifier, VerifierError},
};
use url::Url;

pub use self::helpdesk::{BaseUrl, BaseUrlError};
use self::{api::TicketApi, helpdesk::Helpdesk};

mod api;
mod error;
mod filter;
mod helpdesk;
mod reply;
mod sample;
mod summary;
mod text;
mod ticket;
mod ticket_id;
#[cfg(test)]
mod tickets;

/// The largest request, in bytes: a reply, or what a client's model wrote.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// The `iss` of transaction tokens.
const AUTH_ISSUER: &str = "drawbridge-auth";

/// How the service is set up.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where gRPC is served.
    #[arg(long, default_value = "127.0.0.1:7230")]
    pub listen: Listen,

    /// Where health, readiness and metrics are served.
    #[arg(long, default_value = "127.0.0.1:7231")]
    pub admin_listen: Listen,

    /// The helpdesk, by https, of tenants whose secret names none. Its API is Zammad's.
    #[arg(long)]
    pub helpdesk_url: Option<BaseUrl>,

    /// Serve a helpdesk of sample tickets on loopback, for the tenants acme and umbrella, and use it.
    #[arg(long, conflicts_with = "helpdesk_url")]
    pub sample_helpdesk: bool,

    /// Where auth serves the keys of its transaction tokens.
    #[arg(long, default_value = "http://127.0.0.1:7111/.well-known/jwks.json")]
    pub auth_jwks_url: Url,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = AUTH_ISSUER)]
    pub auth_issuer: String,

    /// Where the helpdesks' tokens come from.
    #[command(flatten)]
    pub credentials: CredentialsConfig,
}

impl Config {
    /// A service on free ports, with auth at these addresses and no helpdesk yet.
    #[must_use]
    pub fn new(auth_url: Url, auth_jwks_url: Url) -> Self {
        let free = || Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Self {
            listen: free(),
            admin_listen: free(),
            helpdesk_url: None,
            sample_helpdesk: false,
            auth_jwks_url,
            auth_issuer: AUTH_ISSUER.to_owned(),
            credentials: CredentialsConfig::new(auth_url),
        }
    }
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Transaction tokens could not be verified.
    #[error("cannot prepare to verify callers")]
    Verifier(#[from] VerifierError),
    /// Credentials could not be set up.
    #[error("cannot prepare to take credentials")]
    Credentials(#[from] SetupError),
    /// There is no TLS.
    #[error("cannot make an HTTP client for the helpdesk")]
    Http(#[from] reqwest::Error),
    /// The sample is broken.
    #[error("cannot read the sample tickets")]
    Sample(#[from] toml::de::Error),
    /// An address could not be bound.
    #[error("cannot serve")]
    Bind(#[from] BindError),
}

/// Starts the service.
///
/// # Errors
/// When no source of credentials is named, or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<Running, StartError> {
    let verifier = Verifier::new("tickets", &config.auth_issuer, config.auth_jwks_url)?;
    let starting = Starting::new();
    let mut credentials = config.credentials;
    if config.sample_helpdesk {
        credentials = CredentialsConfig { embedded: Some(sample::serve(&starting)?), ..credentials };
    }
    let credentials = credentials.open("tickets")?;
    let closing = credentials.clone();
    let in_use = starting.after_calls(async move { closing.close().await });
    let helpdesk = Helpdesk::new(credentials, config.helpdesk_url, in_use)?;
    let service =
        TicketServiceServer::new(TicketApi::new(helpdesk)).max_decoding_message_size(REQUEST_BYTES_MAX);
    let address = starting.grpc(&config.listen, GrpcServer::tool_service(service, verifier))?;
    starting.readiness().ready();
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry))?)
}
