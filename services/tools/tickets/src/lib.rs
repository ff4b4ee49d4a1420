//! Finds, reads, summarizes and answers the support tickets of the caller's company.

use std::net::{Ipv4Addr, SocketAddr};

use drawbridge_proto::tickets::v1::ticket_service_server::TicketServiceServer;
use drawbridge_sdk::{
    Admin, BindError, BlockingJobs, GrpcServer, Listen, MtlsError, MtlsServerConfig, Peers,
    RunningService, ServiceBuilder, SpiffeId, Telemetry,
    credentials::{CredentialsConfig, SetupError},
    transaction_token::{Verifier, VerifierError},
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

/// The service's configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where to serve gRPC: an address and a port, or `unix:/path` for this host only.
    #[arg(long, default_value = "127.0.0.1:7230")]
    pub listen: Listen,

    /// Where to serve health, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:7231")]
    pub admin_listen: Listen,

    /// The https URL of the helpdesk of tenants whose secret contains no URL. Its API must be
    /// Zammad's.
    #[arg(long)]
    pub helpdesk_url: Option<BaseUrl>,

    /// Serve and use a helpdesk of sample tickets on loopback, for the tenants acme and umbrella.
    #[arg(long, conflicts_with = "helpdesk_url")]
    pub sample_helpdesk: bool,

    /// The maximum number of tickets that are parsed or summarized concurrently. Further calls
    /// queue until their deadlines.
    #[arg(long, default_value_t = JOBS_MAX)]
    pub jobs_max: usize,

    /// The JWKS URL of auth's transaction tokens.
    #[arg(long, default_value = "http://127.0.0.1:7111/.well-known/jwks.json")]
    pub auth_jwks_url: Url,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = AUTH_ISSUER)]
    pub auth_issuer: String,

    /// The SPIFFE id of auth. Absent: the service's own with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// The source of the helpdesks' tokens.
    #[command(flatten)]
    pub credentials: CredentialsConfig,

    /// The callers to accept, and the service's certificate.
    #[command(flatten)]
    pub mtls: MtlsServerConfig,
}

impl Config {
    /// A config for auth at these URLs, without a helpdesk, on free ports.
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
    /// The certificate or trust bundle is unusable.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// The verifier of transaction tokens could not be created.
    #[error("cannot create the verifier of transaction tokens")]
    Verifier(#[from] VerifierError),
    /// Credentials could not be set up.
    #[error("cannot set up credentials")]
    Credentials(#[from] SetupError),
    /// The TLS backend could not be initialized.
    #[error("cannot create an HTTP client for the helpdesk")]
    Http(#[from] reqwest::Error),
    /// The sample data is invalid.
    #[error("cannot read the sample tickets")]
    Sample(#[from] toml::de::Error),
    /// An address could not be bound.
    #[error("cannot serve")]
    Bind(#[from] BindError),
}

/// Starts the service.
///
/// # Errors
/// When no credentials source is configured, or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    let builder = ServiceBuilder::new();
    let peers = Peers::start(&builder, &config.mtls.identity)?;
    let auth_id = config.auth_spiffe_id.as_ref();
    let verifier = Verifier::with_peers(
        &peers,
        auth_id,
        "tickets",
        &config.auth_issuer,
        config.auth_jwks_url,
    )?;
    let mut credentials = config.credentials;
    if config.sample_helpdesk {
        credentials = CredentialsConfig { embedded: Some(sample::serve(&builder)?), ..credentials };
    }
    let credentials = credentials.open("tickets", &peers, auth_id)?;
    let credentials_to_close = credentials.clone();
    let in_use = builder.on_drained(async move { credentials_to_close.close().await });
    let jobs = BlockingJobs::new(config.jobs_max);
    let helpdesk = Helpdesk::new(credentials, config.helpdesk_url, jobs, in_use)?;
    let service = TicketServiceServer::new(TicketApi::new(helpdesk))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = GrpcServer::tool_service(service, verifier)
        .request_bytes_max(REQUEST_BYTES_MAX)
        .accept(&peers, &config.mtls)?;
    let address = server.start(&builder, &config.listen)?;
    builder.readiness().set_ready();
    Ok(builder.finish(address, Admin::new(&config.admin_listen, telemetry))?)
}
