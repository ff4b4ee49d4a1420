//! Finds, reads, summarizes and answers the support tickets of the caller's company.

use std::net::{Ipv4Addr, SocketAddr};

use drawbridge_proto::tickets::v1::ticket_service_server::TicketServiceServer;
use drawbridge_sdk::{
    Admin, BindError, BlockingJobs, GrpcServer, Listen, MtlsError, MtlsServerConfig,
    RunningService, ServiceBuilder, SpiffeId, Telemetry,
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
const JOBS_MAX: usize = 4;

/// How the service is set up.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where gRPC is served: an address and a port, or `unix:/path` for this host alone.
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

    /// The most tickets whose texts are read or summarized at once. Further ones queue for as long as their
    /// deadlines allow.
    #[arg(long, default_value_t = JOBS_MAX)]
    pub jobs_max: usize,

    /// Where auth serves the keys of its transaction tokens.
    #[arg(long, default_value = "http://127.0.0.1:7111/.well-known/jwks.json")]
    pub auth_jwks_url: Url,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = AUTH_ISSUER)]
    pub auth_issuer: String,

    /// The SPIFFE id of auth. Absent: the own one with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// Where the helpdesks' tokens come from.
    #[command(flatten)]
    pub credentials: CredentialsConfig,

    /// Who may call, and what they are shown.
    #[command(flatten)]
    pub mtls: MtlsServerConfig,
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
            jobs_max: JOBS_MAX,
            auth_jwks_url,
            auth_issuer: AUTH_ISSUER.to_owned(),
            auth_spiffe_id: None,
            credentials: CredentialsConfig::new(auth_url),
            mtls: MtlsServerConfig::default(),
        }
    }
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the service shows to others cannot be used.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
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
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    let starting = ServiceBuilder::new();
    let peers = starting.peers(&config.mtls.own)?;
    let auth_id = config.auth_spiffe_id.as_ref();
    let verifier =
        Verifier::by(&peers, auth_id, "tickets", &config.auth_issuer, config.auth_jwks_url)?;
    let mut credentials = config.credentials;
    if config.sample_helpdesk {
        credentials =
            CredentialsConfig { embedded: Some(sample::serve(&starting)?), ..credentials };
    }
    let credentials = credentials.open("tickets", &peers, auth_id)?;
    let closing = credentials.clone();
    let in_use = starting.on_drained(async move { closing.close().await });
    let jobs = BlockingJobs::new(config.jobs_max);
    let helpdesk = Helpdesk::new(credentials, config.helpdesk_url, jobs, in_use)?;
    let service = TicketServiceServer::new(TicketApi::new(helpdesk))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = GrpcServer::tool_service(service, verifier)
        .request_bytes_max(REQUEST_BYTES_MAX)
        .accept(&peers, &config.mtls)?;
    let address = starting.grpc(&config.listen, server)?;
    starting.readiness().ready();
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry))?)
}
