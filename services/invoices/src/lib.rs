//! Gets the data out of invoices, says which rules of EN 16931 they break, keeps them, and has them approved.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use drawbridge_proto::invoices::v1::invoice_service_server::InvoiceServiceServer;
use drawbridge_sdk::{
    Admin, BindError, BlockingJobs, GrpcServer, Listen, MtlsError, MtlsServerConfig, Peers,
    RunningService, ServiceBuilder, SpiffeId, Telemetry,
    credentials::{CredentialsConfig, SetupError},
    identity::{Verifier, VerifierError},
};
use rust_decimal::Decimal;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use self::{
    api::{InvoiceApi, approval::Limit},
    extract::DOCUMENT_BYTES_MAX,
    store::{DatabaseUrl, PostgresStore, Serving, Store},
};
pub use store::{DatabaseUrlError, StoreError};

mod api;
mod check;
mod cii;
mod decimal;
mod error;
mod extract;
mod findings;
#[cfg(test)]
mod invoices;
mod pdf;
mod profile;
mod store;
mod ubl;
mod values;
mod xml;

/// What Vault calls the role of those who migrate. No caller gets it.
const MIGRATOR: &str = "invoices-migrator";
const AUTH_ISSUER: &str = "drawbridge-auth";
const CONNECTIONS_MAX: u32 = 64;
const DOCUMENTS_MAX: usize = 4;
const APPROVAL_LIMIT: u32 = 10_000;
const APPROVAL_CURRENCY: &str = "EUR";
/// The largest request, in bytes: a document, and little else.
const REQUEST_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 1024;

/// How the service is set up.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where gRPC is served: an address and a port, or `unix:/path` for this host alone.
    #[arg(long, default_value = "127.0.0.1:7220")]
    pub listen: Listen,

    /// Where health, readiness and metrics are served.
    #[arg(long, default_value = "127.0.0.1:7221")]
    pub admin_listen: Listen,

    /// Where auth serves the keys of its transaction tokens.
    #[arg(long, default_value = "http://127.0.0.1:7111/.well-known/jwks.json")]
    pub auth_jwks_url: Url,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = AUTH_ISSUER)]
    pub auth_issuer: String,

    /// The SPIFFE id of auth. Absent: the own one with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// Where invoices are kept: `postgres://host/database` without a user, `sqlite:path` or `sqlite::memory:`.
    // A secret, so that nobody prints a password that does not belong there.
    #[arg(long, hide_env_values = true)]
    pub database_url: SecretString,

    /// The most connections to PostgreSQL. A caller has two at most.
    #[arg(long, default_value_t = CONNECTIONS_MAX, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub database_connections_max: u32,

    /// The most documents that are read at once. Further ones queue for as long as their deadlines allow.
    #[arg(long, default_value_t = DOCUMENTS_MAX)]
    pub documents_max: usize,

    /// An invoice of more than this is approved only when the person confirms it.
    #[arg(long, default_value_t = APPROVAL_LIMIT.into())]
    pub approval_limit: Decimal,

    /// The currency of the limit, of ISO 4217. Invoices in another are always to be confirmed.
    #[arg(long, default_value = APPROVAL_CURRENCY)]
    pub approval_currency: String,

    /// Where users of PostgreSQL come from.
    #[command(flatten)]
    pub credentials: CredentialsConfig,

    /// Who may call, and what they are shown.
    #[command(flatten)]
    pub mtls: MtlsServerConfig,
}

impl Config {
    /// A service over this database, with auth at these addresses and everything else as it is by default.
    #[must_use]
    pub fn new(database_url: SecretString, auth_url: Url, auth_jwks_url: Url) -> Self {
        Self {
            listen: Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            admin_listen: Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            auth_jwks_url,
            auth_issuer: AUTH_ISSUER.to_owned(),
            auth_spiffe_id: None,
            database_url,
            database_connections_max: CONNECTIONS_MAX,
            documents_max: DOCUMENTS_MAX,
            approval_limit: APPROVAL_LIMIT.into(),
            approval_currency: APPROVAL_CURRENCY.to_owned(),
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
    /// The database is not named as it should be.
    #[error(transparent)]
    DatabaseUrl(#[from] DatabaseUrlError),
    /// Credentials could not be set up.
    #[error("cannot get users of the database")]
    Credentials(#[from] SetupError),
    /// There is nothing to migrate.
    #[error("SQLite is migrated when the service starts")]
    MigratesItself,
    /// The store could not be opened.
    #[error("cannot open the database")]
    Store(#[from] StoreError),
    /// An address could not be bound.
    #[error("cannot serve")]
    Bind(#[from] BindError),
}

/// Brings the PostgreSQL at `database_url` to the schema of this version, and says which that is. The user is a member of
/// `invoices_owner`.
///
/// # Errors
/// When it is no PostgreSQL, cannot be reached, refuses, or was migrated by something newer.
pub async fn migrate(
    database_url: &SecretString,
    username: &str,
    password: &SecretString,
) -> Result<i64, StartError> {
    match DatabaseUrl::parse(database_url.expose_secret())? {
        DatabaseUrl::Postgres(options) => Ok(store::migrate(&options, username, password).await?),
        _ => Err(StartError::MigratesItself),
    }
}

/// The same, as a user that Vault makes for the service itself, and who has gone in the end.
///
/// # Errors
/// As [`migrate`], and when the service has no login of its own.
pub async fn migrate_by_own_login(config: Config) -> Result<i64, StartError> {
    let peers = Peers::open(&config.mtls.own)?;
    let credentials =
        config.credentials.open("invoices", &peers, config.auth_spiffe_id.as_ref())?;
    let migrated = async {
        let lease = credentials.own_database(MIGRATOR).await.map_err(StoreError::from)?;
        migrate(&config.database_url, &lease.username, &lease.password).await
    };
    let migrated = migrated.await;
    credentials.close().await;
    migrated
}

/// Starts the service.
///
/// # Errors
/// When the database is not one of this service's, or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    let starting = ServiceBuilder::new();
    let peers = starting.peers(&config.mtls.own)?;
    let auth_id = config.auth_spiffe_id.as_ref();
    let verifier =
        Verifier::by(&peers, auth_id, "invoices", &config.auth_issuer, config.auth_jwks_url)?;
    let store = Arc::new(match DatabaseUrl::parse(config.database_url.expose_secret())? {
        DatabaseUrl::SqliteFile(options) => Store::file(*options).await?,
        DatabaseUrl::SqliteMemory => Store::memory().await?,
        DatabaseUrl::Postgres(options) => {
            let serving = Serving {
                credentials: config.credentials.open("invoices", &peers, auth_id)?,
                readiness: starting.readiness(),
                connections_max: config.database_connections_max,
            };
            Store::Postgres(PostgresStore::new(*options, serving).into())
        }
    });
    let limit = Limit { amount: config.approval_limit, currency: config.approval_currency };
    let closing = Arc::clone(&store);
    let in_use = starting.on_drained(async move { closing.close().await });
    let jobs = BlockingJobs::new(config.documents_max);
    let service = InvoiceServiceServer::new(InvoiceApi::new(store, limit, jobs, in_use))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = GrpcServer::tool_service(service, verifier)
        .request_bytes_max(REQUEST_BYTES_MAX)
        .accept(&peers, &config.mtls)?;
    let address = starting.grpc(&config.listen, server)?;
    starting.readiness().ready();
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry))?)
}
