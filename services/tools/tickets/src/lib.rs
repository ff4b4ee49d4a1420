//! Finds, reads, summarizes and answers the support tickets of the caller's company.

use drawbridge_proto::tickets::v1::ticket_service_server::TicketServiceServer;
use drawbridge_sdk::{
    BindError, BlockingJobs, RunningService, Telemetry, ToolServiceConfig, ToolServiceError,
    credentials::{CredentialsConfig, SetupError},
    metric, parse_defaults,
};
use url::Url;

use self::{api::TicketApi, helpdesk::Helpdesk};
pub use self::{
    helpdesk::{BaseUrl, BaseUrlError},
    metrics::METRICS,
};

mod api;
mod error;
mod filter;
mod helpdesk;
mod metrics;
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

/// The service's configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The https URL of the helpdesk of tenants whose secret contains no URL. Its API must be
    /// Zammad's.
    #[arg(long)]
    pub helpdesk_url: Option<BaseUrl>,

    /// Serve and use a helpdesk of sample tickets on loopback, for the tenants acme and umbrella.
    #[arg(long, conflicts_with = "helpdesk_url")]
    pub sample_helpdesk: bool,

    /// The maximum number of tickets that are parsed or summarized concurrently. Further calls
    /// queue until their deadlines.
    #[arg(long, default_value_t = 4)]
    pub jobs_max: usize,

    /// The source of the helpdesks' tokens.
    #[command(flatten)]
    pub credentials: CredentialsConfig,

    /// What every tool service has.
    #[command(flatten)]
    pub service: ToolServiceConfig<7230>,
}

impl Config {
    /// A config for auth at this URL, without a helpdesk, with defaults otherwise.
    #[must_use]
    pub fn new(auth_url: Url, service: ToolServiceConfig<7230>) -> Self {
        Self { service, credentials: CredentialsConfig::new(auth_url), ..parse_defaults(&[]) }
    }
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What every tool service needs failed.
    #[error(transparent)]
    Service(#[from] ToolServiceError),
    /// Credentials could not be set up.
    #[error("cannot set up credentials")]
    Credentials(#[from] SetupError),
    /// The TLS backend could not be initialized.
    #[error("cannot create an HTTP client for the helpdesk")]
    Http(#[from] reqwest::Error),
    /// The sample data is invalid.
    #[error("cannot read the sample tickets")]
    Sample(#[from] toml::de::Error),
    /// The address of the sample helpdesk could not be bound.
    #[error("cannot serve the sample helpdesk")]
    Bind(#[from] BindError),
}

/// Starts the service.
///
/// # Errors
/// When no credentials source is configured, or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    metric::describe(METRICS);
    let builder = config.service.prepare("tickets", telemetry)?;
    let mut credentials = config.credentials;
    if config.sample_helpdesk {
        let sample = sample::serve(builder.life())?;
        credentials = CredentialsConfig { embedded: Some(sample), ..credentials };
    }
    let credentials = builder.open_credentials(credentials)?;
    let credentials_to_close = credentials.clone();
    builder.on_drained(async move { credentials_to_close.close().await });
    let jobs = BlockingJobs::new(config.jobs_max);
    let helpdesk = Helpdesk::new(credentials, config.helpdesk_url, jobs, builder.life())?;
    let service = TicketServiceServer::new(TicketApi::new(helpdesk));
    Ok(builder.request_bytes_max(REQUEST_BYTES_MAX).serve(service)?)
}
