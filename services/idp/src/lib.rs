//! A small OAuth 2.1 authorization server for development: authorization code with PKCE, refresh
//! tokens, client credentials for workloads, dynamic client registration and resource indicators.
//!
//! All state is in memory and bounded: a restart loses clients, tokens and the signing key, unless
//! a state file stores them. If a code or a refresh token is used twice, its grant ends: the server
//! revokes the grant's refresh tokens itself and its access tokens through auth, if auth is
//! configured. It knows its users' passwords in plain text, so by default it listens on loopback
//! only.

mod address;
mod authorize;
mod client;
mod client_name;
mod error;
mod grant;
mod grant_type;
mod issuer;
mod keys;
mod metadata;
mod page;
mod params;
mod pending;
mod per_address;
mod register;
mod revoker;
mod routes;
mod secret;
mod server;
mod sign_in_limiter;
mod state_file;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod unix_time;
mod users;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use drawbridge_audit::{AuditConfig, AuditError, AuditLog};
use drawbridge_config::ConfigError;
use drawbridge_runtime::{
    Admin, BindError, GrpcUrl, Listen, RunningService, ServiceBuilder, Telemetry, parse_defaults,
};
use drawbridge_transport::{ChannelError, MtlsConfig, MtlsError, Peers, SpiffeId};
use url::Url;

use crate::{
    issuer::Issuer, keys::SigningKey, revoker::Revoker, server::Idp, state_file::StateFile,
};
pub use drawbridge_config::users::{ConfiguredClient, Workload};

pub use crate::{
    keys::KeyError,
    state_file::StateFileError,
    users::{Facts, check as check_users, facts, tenants},
};

const TTL_SECONDS_MAX: u64 = 365 * 86_400;

/// Configuration of the authorization server.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The address for clients and browsers.
    #[arg(long, default_value = "127.0.0.1:7100")]
    pub listen: Listen,

    /// The address for health, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:7101")]
    pub admin_listen: Listen,

    /// The issuer, as clients see it: an http or https origin. Default: `http://` and the bound
    /// address.
    #[arg(long)]
    pub issuer: Option<Url>,

    /// The resources for which it issues tokens (RFC 8707), comma-separated. The first one is the
    /// default audience.
    #[arg(long, value_delimiter = ',', default_values = ["http://127.0.0.1:7180/mcp"])]
    pub resources: Vec<String>,

    /// The internal resources of the mesh, comma-separated. Only workloads, and clients of the
    /// users file that are `internal`, get tokens for them; clients that register themselves do
    /// not.
    #[arg(long, value_delimiter = ',', default_values = ["drawbridge-auth"])]
    pub internal_resources: Vec<String>,

    /// Additional schemes of redirect URIs that clients may register, comma-separated. Always
    /// allowed are https, http on a loopback host, and private-use schemes with a dot (RFC 8252
    /// section 7.1).
    #[arg(long, value_delimiter = ',', default_values = ["cursor", "vscode", "vscode-insiders"])]
    pub redirect_schemes: Vec<String>,

    /// How many sign-ins from one address for one user may fail before they are locked. The limit
    /// is four times as high for one address with all users, and twenty times as high for one user
    /// with all addresses.
    #[arg(
        long,
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub sign_in_failures_max: u32,

    /// The duration of a lock after failed sign-ins, in seconds.
    #[arg(long, default_value_t = 60, value_parser = ttl_seconds())]
    pub sign_in_lock_seconds: u64,

    /// The maximum number of pending sign-ins from one address (for IPv6: a /64). Further ones are
    /// rejected.
    #[arg(long, default_value_t = 64)]
    pub sign_ins_of_address_max: usize,

    /// The maximum number of registrations from one address that no sign-in has used. Further ones
    /// are rejected. An unused registration expires after an hour.
    #[arg(long, default_value_t = 256)]
    pub registrations_of_address_max: usize,

    /// The gRPC address of auth, through which access tokens are revoked when a code or refresh
    /// token is used twice. Absent: these access tokens remain valid until they expire.
    #[arg(long)]
    pub auth_url: Option<GrpcUrl>,

    /// The SPIFFE id of auth. Default: the own one with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// The audience of tokens for auth.
    #[arg(long, default_value = "drawbridge-auth")]
    pub auth_audience: String,

    /// The scopes that it grants, comma-separated. A request without scopes is granted all of them.
    #[arg(long, value_delimiter = ',', default_values = ["mcp"])]
    pub scopes: Vec<String>,

    /// A TOML file of users and workloads. Default: alice, bob, carol, dave, erin and frank, with
    /// their names as passwords.
    #[arg(long)]
    pub users: Option<PathBuf>,

    /// A file that stores registered clients, the signing key and refresh tokens across restarts.
    /// It is readable by this user only. Absent: they are in memory.
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,

    /// Allow listening on an address that others can reach. The server is made for development.
    #[arg(long, env = "DRAWBRIDGE_IDP_ALLOW_NON_LOOPBACK")]
    pub allow_non_loopback: bool,

    /// The lifetime of access tokens, in seconds.
    #[arg(long, default_value_t = 600, value_parser = ttl_seconds())]
    pub access_token_ttl_seconds: u64,

    /// How long after the sign-in tokens can be refreshed, in seconds. Rotation does not extend it.
    #[arg(long, default_value_t = 86_400, value_parser = ttl_seconds())]
    pub refresh_token_ttl_seconds: u64,

    /// The lifetime of authorization codes, in seconds.
    #[arg(long, default_value_t = 60, value_parser = ttl_seconds())]
    pub code_ttl_seconds: u64,

    /// Workloads in addition to those of the users file.
    #[arg(skip)]
    pub workloads: Vec<Workload>,

    /// Clients in addition to those of the users file.
    #[arg(skip)]
    pub clients: Vec<ConfiguredClient>,

    /// What is recorded of sign-ins.
    #[command(flatten)]
    pub audit: AuditConfig,

    /// mTLS towards auth.
    #[command(flatten)]
    pub mtls: MtlsConfig,
}

fn ttl_seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=TTL_SECONDS_MAX)
}

impl Default for Config {
    fn default() -> Self {
        parse_defaults(&[])
    }
}

/// Why the authorization server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not loopback.
    #[error(
        "refusing to listen on {address}: it is not loopback, and this server is for development \
         (--allow-non-loopback permits it)"
    )]
    NonLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The issuer is not an origin.
    #[error("the issuer {issuer} must be an http or https origin, without path, query or fragment")]
    Issuer {
        /// The configured issuer.
        issuer: Url,
    },
    /// No resource is configured.
    #[error("at least one resource must be configured")]
    NoResource,
    /// A scope has characters that RFC 6749 section 3.3 forbids, or no scope is configured.
    #[error("scopes must be one or more words of printable ASCII without quotes and backslashes")]
    Scope,
    /// The scheme is invalid, or browsers handle it themselves.
    #[error(
        "{scheme:?} in --redirect-schemes is not a lower-case scheme that applications can handle"
    )]
    RedirectScheme {
        /// The scheme.
        scheme: String,
    },
    /// A configured client has an invalid redirect URI.
    #[error("the client {client_id:?} has an invalid redirect URI")]
    RedirectUri {
        /// The client.
        client_id: String,
    },
    /// The certificate, key or authorities for mTLS cannot be used.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// No channel to auth can be created.
    #[error("cannot connect to auth")]
    Auth(#[from] ChannelError),
    /// The users file is invalid.
    #[error(transparent)]
    Users(#[from] ConfigError),
    /// Two users or workloads have one name, so a subject would be ambiguous (RFC 9068 section 5).
    #[error("{name:?} is the name of more than one user or workload")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The signing key could not be generated.
    #[error("cannot generate a signing key")]
    Key(#[from] KeyError),
    /// The audit log cannot be used.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The state file cannot be read or written.
    #[error(transparent)]
    StateFile(#[from] StateFileError),
}

/// Starts the authorization server.
///
/// # Errors
/// If the configuration is invalid or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    if !config.allow_non_loopback {
        require_loopback(&config.listen)?;
        require_loopback(&config.admin_listen)?;
    }
    let users = users::load(config.users.as_deref(), &config.workloads, &config.clients)?;
    // Bound first, because the issuer may depend on the port.
    let address = config.listen.tcp_address()?;
    let (listen, address) = match &config.listen {
        bound @ Listen::Bound(_) => (bound.clone(), address),
        _ => Listen::bind(address)?,
    };
    let issuer = Issuer::new(config.issuer.as_ref(), address)?;
    let builder = ServiceBuilder::new();
    let file = config.state_file.clone().map(StateFile::new);
    let saved = file.as_ref().map(StateFile::read).transpose()?.flatten();
    let key = Arc::new(match file.as_ref().zip(saved.as_ref()) {
        Some((file, saved)) => SigningKey::read(&saved.key)
            .map_err(|source| StateFileError::Key { path: file.path().to_owned(), source })?,
        None => SigningKey::generate()?,
    });
    let revoker = revoker(&config, &issuer, &key, &builder)?;
    let audit = AuditLog::open(&config.audit, &builder, "idp")?;
    audit.observe(&telemetry.acts());
    let operator = audit.admin_routes();
    let mut idp = Idp::new(issuer, &config, users, key, revoker, audit)?;
    if let Some(file) = file {
        idp.restore(file, saved).await;
    }
    let idp = Arc::new(idp);
    idp.try_save().await?;
    tracing::info!(issuer = idp.issuer.as_str(), %address, "starting the authorization server");

    let address = builder.http(&listen, routes::router(idp))?;
    builder.readiness().set_ready();
    let admin = Admin::new(&config.admin_listen, telemetry).with_operator_routes(operator);
    Ok(builder.finish(address, admin)?)
}

fn revoker(
    config: &Config,
    issuer: &Issuer,
    key: &Arc<SigningKey>,
    builder: &ServiceBuilder,
) -> Result<Option<Arc<Revoker>>, StartError> {
    let Some(url) = &config.auth_url else { return Ok(None) };
    let peers = Peers::start(builder, &config.mtls)?;
    Ok(Some(Arc::new(Revoker {
        auth: peers.connect(url, "auth", config.auth_spiffe_id.as_ref())?,
        audience: config.auth_audience.clone(),
        issuer: issuer.as_str().to_owned(),
        key: Arc::clone(key),
        stopping: builder.stopping(),
    })))
}

fn require_loopback(listen: &Listen) -> Result<(), StartError> {
    let address = listen.tcp_address()?;
    if address.ip().is_loopback() { Ok(()) } else { Err(StartError::NonLoopback { address }) }
}
