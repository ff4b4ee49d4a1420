//! Extracts the data of invoices, checks them against the rules of EN 16931, stores them, and
//! handles their approval.

use std::sync::Arc;

use drawbridge_proto::invoices::v1::invoice_service_server::InvoiceServiceServer;
use drawbridge_sdk::{
    BlockingJobs, Effect, MtlsError, Peers, RunningService, ServiceBuilder, Telemetry,
    ToolServiceConfig, ToolServiceError,
    credentials::{CredentialsConfig, SetupError},
    parse_defaults,
};
use rust_decimal::Decimal;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use self::{
    api::{InvoiceApi, approval::ApprovalLimit},
    extract::DOCUMENT_BYTES_MAX,
    store::{DatabaseUrl, PostgresSettings, PostgresStore, Store},
};
pub use store::{DatabaseReport, DatabaseUrlError, StoreError, inspect_database};

mod api;
mod check;
mod cii;
mod decimal;
mod document;
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

/// Vault's role for migrations. No caller gets it.
const MIGRATOR: &str = "invoices-migrator";
/// The largest request, in bytes: a document, and little else.
const REQUEST_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 1024;

/// The service's configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The database of invoices: `postgres://host/database` without a user, `sqlite:path` or
    /// `sqlite::memory:`.
    // A secret, so that a password given here by mistake is not printed.
    #[arg(long, hide_env_values = true)]
    pub database_url: SecretString,

    /// The maximum number of connections to PostgreSQL. Each caller has at most two.
    #[arg(
        long,
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(2..=10_000)
    )]
    pub database_connections_max: u32,

    /// The maximum number of documents that are extracted concurrently. Further calls queue until
    /// their deadlines.
    #[arg(long, default_value_t = 4)]
    pub documents_max: usize,

    /// Approving an invoice above this amount requires confirmation by the person.
    #[arg(long, default_value_t = 10_000.into())]
    pub approval_limit: Decimal,

    /// The currency of the limit (ISO 4217). Invoices in another currency always require
    /// confirmation.
    #[arg(long, default_value = "EUR")]
    pub approval_currency: String,

    /// The source of PostgreSQL users.
    #[command(flatten)]
    pub credentials: CredentialsConfig,

    /// What every tool service has.
    #[command(flatten)]
    pub service: ToolServiceConfig<7220>,
}

impl Config {
    /// A config for this database, with auth at this URL and defaults otherwise.
    #[must_use]
    pub fn new(
        database_url: SecretString,
        auth_url: Url,
        service: ToolServiceConfig<7220>,
    ) -> Self {
        let credentials = CredentialsConfig::new(auth_url);
        Self { service, database_url, credentials, ..parse_defaults(&["--database-url="]) }
    }
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What every tool service needs failed.
    #[error(transparent)]
    Service(#[from] ToolServiceError),
    /// The certificate for a migration is unusable.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// The database URL is invalid.
    #[error(transparent)]
    DatabaseUrl(#[from] DatabaseUrlError),
    /// Credentials could not be set up.
    #[error("cannot set up database credentials")]
    Credentials(#[from] SetupError),
    /// The database needs no separate migration.
    #[error("SQLite is migrated when the service starts, not by `migrate`")]
    MigratesItself,
    /// The store could not be opened.
    #[error("cannot open the database")]
    Store(#[from] StoreError),
}

/// Migrates the PostgreSQL at `database_url` to the schema of this version, and returns the version
/// that the schema has then: a newer one stays. Services of the version before may serve meanwhile.
/// Several migrations at once are one after another. The user must be a member of `invoices_owner`.
///
/// # Errors
/// When it is not PostgreSQL, cannot be reached, rejects a statement, or its locks are not free for
/// five minutes.
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

/// The same, as a user that Vault creates for the service itself and revokes afterwards.
///
/// # Errors
/// As [`migrate`], and when the service has no Vault login.
pub async fn migrate_by_own_login(config: Config) -> Result<i64, StartError> {
    let peers = Peers::open(&config.service.mtls.identity)?;
    let credentials =
        config.credentials.open("invoices", &peers, config.service.auth_spiffe_id.as_ref())?;
    let migrated = async {
        let lease = credentials.service_database(MIGRATOR).await.map_err(StoreError::from)?;
        migrate(&config.database_url, &lease.username, &lease.password).await
    };
    let migrated = migrated.await;
    credentials.close().await;
    migrated
}

/// Without the database, or with an older schema, the service can do nothing.
fn watch_database(life: &ServiceBuilder, store: &PostgresStore) {
    let condition = life.readiness().condition("database", Effect::Required);
    let probe = store.probe();
    let check = move || {
        let probing = probe();
        async move { probing.await.map_err(|_| "cannot be reached".to_owned()) }
    };
    life.spawn(condition.monitor(check, life.stopping()));
    life.tasks().spawn_until_stopping(store.check_schema());
}

/// Starts the service.
///
/// # Errors
/// When the database URL is invalid, the database cannot be opened, or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    let builder = config.service.prepare("invoices", telemetry)?;
    let store = Arc::new(match DatabaseUrl::parse(config.database_url.expose_secret())? {
        DatabaseUrl::SqliteFile(options) => Store::file(*options).await?,
        DatabaseUrl::SqliteMemory => Store::memory().await?,
        DatabaseUrl::Postgres(options) => {
            let has_own_login = config.credentials.vault_login.vault_login.is_some();
            let settings = PostgresSettings {
                has_own_login,
                credentials: builder.open_credentials(config.credentials)?,
                readiness: builder.readiness(),
                connections_max: config.database_connections_max,
            };
            let store = PostgresStore::new(*options, settings);
            watch_database(builder.life(), &store);
            Store::Postgres(store.into())
        }
    });
    let limit = ApprovalLimit { amount: config.approval_limit, currency: config.approval_currency };
    let store_to_close = Arc::clone(&store);
    builder.on_drained(async move { store_to_close.close().await });
    let jobs = BlockingJobs::new(config.documents_max);
    let service = InvoiceServiceServer::new(InvoiceApi::new(store, limit, jobs))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    Ok(builder.request_bytes_max(REQUEST_BYTES_MAX).serve(service)?)
}
