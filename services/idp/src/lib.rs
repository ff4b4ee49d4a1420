//! A small OAuth 2.1 authorization server for development: authorization code with PKCE, refresh tokens,
//! client credentials for workloads, dynamic client registration and resource indicators.
//!
//! Everything is held in memory and bounded: a restart forgets clients, tokens and the signing key.
//! Revoking a grant ends its refresh tokens; access tokens already issued live out their few minutes.
//! It knows its users' passwords in clear, so it listens on loopback alone unless told otherwise.

mod authorize;
mod client;
mod error;
mod grant;
mod keys;
mod metadata;
mod page;
mod params;
mod register;
mod secret;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod users;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use drawbridge_sdk::{Admin, BindError, ConfigTextError, Listen, Running, Starting, Telemetry};
use url::Url;

pub use crate::{
    keys::KeyError,
    users::{Workload, tenants},
};
use crate::{metadata::Issuer, server::Idp};

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7100);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7101);
const RESOURCES: [&str; 2] = ["http://127.0.0.1:7180/mcp", "drawbridge-auth"];
const SCOPES: [&str; 1] = ["mcp"];
const ACCESS_TOKEN_TTL_SECONDS: u64 = 600;
const REFRESH_TOKEN_TTL_SECONDS: u64 = 86_400;
const CODE_TTL_SECONDS: u64 = 60;
const TTL_SECONDS_MAX: u64 = 365 * 86_400;

/// How the authorization server runs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Authorization server")]
pub struct Config {
    /// Where clients and browsers reach it.
    #[arg(long, default_value = "127.0.0.1:7100")]
    pub listen: Listen,

    /// Where operators reach health, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:7101")]
    pub admin_listen: Listen,

    /// The issuer, as clients see it: an http or https origin. Absent: `http://` and the bound address.
    #[arg(long)]
    pub issuer: Option<Url>,

    /// The resources for which it issues tokens (RFC 8707), comma-separated. The first is the audience of a
    /// request that names none.
    #[arg(long, value_delimiter = ',', default_values = RESOURCES)]
    pub resources: Vec<String>,

    /// The scopes that it grants, comma-separated. A request that names none is granted all of them.
    #[arg(long, value_delimiter = ',', default_values = SCOPES)]
    pub scopes: Vec<String>,

    /// A TOML file of users and workloads. Absent: alice and bob, each with their name as password.
    #[arg(long)]
    pub users: Option<PathBuf>,

    /// Lets it listen on an address that others can reach. It is made for development.
    #[arg(long, env = "DRAWBRIDGE_IDP_ALLOW_NON_LOOPBACK")]
    pub allow_non_loopback: bool,

    /// How long an access token is good for, in seconds.
    #[arg(long, default_value_t = ACCESS_TOKEN_TTL_SECONDS, value_parser = ttl_seconds())]
    pub access_token_ttl_seconds: u64,

    /// How long after the sign-in tokens can be refreshed, in seconds. Rotation does not prolong it.
    #[arg(long, default_value_t = REFRESH_TOKEN_TTL_SECONDS, value_parser = ttl_seconds())]
    pub refresh_token_ttl_seconds: u64,

    /// How long an authorization code is good for, in seconds.
    #[arg(long, default_value_t = CODE_TTL_SECONDS, value_parser = ttl_seconds())]
    pub code_ttl_seconds: u64,

    /// Workloads besides those of the users file.
    #[arg(skip)]
    pub workloads: Vec<Workload>,
}

fn ttl_seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=TTL_SECONDS_MAX)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen::Address(LISTEN),
            admin_listen: Listen::Address(ADMIN_LISTEN),
            issuer: None,
            resources: RESOURCES.map(str::to_owned).to_vec(),
            scopes: SCOPES.map(str::to_owned).to_vec(),
            users: None,
            allow_non_loopback: false,
            access_token_ttl_seconds: ACCESS_TOKEN_TTL_SECONDS,
            refresh_token_ttl_seconds: REFRESH_TOKEN_TTL_SECONDS,
            code_ttl_seconds: CODE_TTL_SECONDS,
            workloads: Vec::new(),
        }
    }
}

/// Why the authorization server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Others could reach the address.
    #[error(
        "refusing to listen on {address}: it is not loopback and this server is for development \
         (--allow-non-loopback lets it)"
    )]
    NonLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket that was handed over does not say its address.
    #[error("cannot tell the address of a bound socket")]
    Address(#[source] io::Error),
    /// The issuer is not one.
    #[error("the issuer {issuer} must be an http or https origin, without path, query or fragment")]
    Issuer {
        /// What was given.
        issuer: Url,
    },
    /// There is nothing to issue tokens for.
    #[error("at least one resource must be configured")]
    NoResource,
    /// A scope has characters that RFC 6749 section 3.3 does not allow, or there is none.
    #[error("scopes must be one or more words of printable ASCII without quotes and backslashes")]
    Scope,
    /// The users file cannot be used.
    #[error(transparent)]
    Users(#[from] ConfigTextError),
    /// Two users or workloads have one name, so a subject would be ambiguous (RFC 9068 section 5).
    #[error("{name:?} is the name of more than one user or workload")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The signing key could not be made.
    #[error("cannot make a signing key")]
    Key(#[from] KeyError),
}

/// Starts the authorization server.
///
/// # Errors
/// When the configuration is not right or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<Running, StartError> {
    if !config.allow_non_loopback {
        refuse_non_loopback(&config.listen)?;
        refuse_non_loopback(&config.admin_listen)?;
    }
    let users = users::load(config.users.as_deref(), &config.workloads)?;
    // Bound before the rest is built, because the issuer may follow from the port.
    let (listen, address) = match &config.listen {
        Listen::Address(address) => Listen::bind(*address)?,
        bound @ Listen::Bound(listener) => {
            (bound.clone(), listener.local_addr().map_err(StartError::Address)?)
        }
    };
    let issuer = Issuer::new(config.issuer.as_ref(), address)?;
    let idp = Idp::new(issuer, &config, users)?;
    tracing::info!(issuer = idp.issuer.as_str(), %address, "the authorization server starts");

    let starting = Starting::new();
    let address = starting.http(&listen, server::router(Arc::new(idp)))?;
    starting.readiness().ready();
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry))?)
}

fn refuse_non_loopback(listen: &Listen) -> Result<(), StartError> {
    let address = match listen {
        Listen::Address(address) => *address,
        Listen::Bound(listener) => listener.local_addr().map_err(StartError::Address)?,
    };
    if address.ip().is_loopback() { Ok(()) } else { Err(StartError::NonLoopback { address }) }
}
