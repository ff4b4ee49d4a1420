//! Stores invoices in PostgreSQL with a user per caller, or in SQLite for a mesh on one machine.
//!
//! Each access is a [`StoreOperation`], written once for both. Every operation is idempotent: a
//! read, or a write with a unique key. So it is retried when the database user was revoked
//! meanwhile.

use std::time::Duration;

use drawbridge_sdk::{
    CallContext, Readiness,
    credentials::{Credentials, CredentialsError},
    transaction_token::VerifiedCaller,
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tokio::time::timeout;
use tracing::{
    Instrument as _, Span, field::Empty, instrument::WithSubscriber as _, subscriber::NoSubscriber,
};

pub(crate) mod approve;
mod columns;
mod errors;
pub(crate) mod find;
mod inspect;
mod migrate;
mod postgres;
mod row;
pub(crate) mod save;
mod schema;
mod scope;
pub(crate) mod search;
mod transaction;
mod url;

pub(crate) use columns::{Columns, ColumnsError};
pub use inspect::{DatabaseReport, inspect_database};
pub(crate) use migrate::migrate;
#[cfg(test)]
pub(crate) use migrate::{migrate_by, migrator};
pub(crate) use postgres::PostgresStore;
pub(crate) use row::StoredInvoice;
pub(crate) use scope::Scope;
pub(crate) use transaction::Transaction;
pub(crate) use url::DatabaseUrl;
pub use url::DatabaseUrlError;

/// The maximum number of connections to an SQLite file.
const SQLITE_CONNECTIONS_MAX: u32 = 4;
/// How long SQLite waits for another writer.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The error of a store operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The credentials could not be obtained.
    #[error("no credentials for the database")]
    Credentials(#[from] CredentialsError),
    /// The database is unavailable.
    #[error("the database does not respond")]
    Unavailable(#[source] sqlx::Error),
    /// The deadline passed before the operation completed.
    #[error("the database does not answer in time")]
    Timeout,
    /// Its schema is older than this service requires.
    #[error("the database schema has {}; this service requires version {needed} or later: \
             run `migrate`",
        found.map_or_else(|| "no version".to_owned(), |found| format!("version {found}")))]
    Schema {
        /// The version found.
        found: Option<i64>,
        /// The version required.
        needed: i64,
    },
    /// An invoice with the same number, supplier and date but another document exists.
    #[error("another document with this number, supplier and date is stored already, as {id}")]
    OtherDocument {
        /// The id of the stored invoice.
        id: String,
    },
    /// SQLite truncates a text at NUL, and PostgreSQL rejects NUL.
    #[error("a text must not contain NUL")]
    Nul,
    /// The migration failed.
    #[error("cannot migrate the database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database returned an error.
    #[error("database error")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// The word for spans.
    fn word(&self) -> &'static str {
        match self {
            Self::Credentials(_) => "credentials",
            Self::Unavailable(_) => "unavailable",
            Self::Timeout => "timeout",
            Self::Schema { .. } => "schema",
            Self::OtherDocument { .. } => "other_document",
            Self::Nul => "nul",
            Self::Migrate(_) => "migrate",
            Self::Database(_) => "database",
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            // `query_canceled`: the statement timeout, which is set to the call's deadline.
            sqlx::Error::Database(ref inner) if inner.code().as_deref() == Some("57014") => {
                Self::Timeout
            }
            error => Self::Database(error),
        }
    }
}

/// The permission of a database user. Each is a role of Vault's database engine, and a group role
/// in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read the caller's own invoices and those shared with the tenant.
    Read,
    /// Store and change the caller's own invoices.
    Write,
    /// Read and approve all invoices of the tenant.
    Approve,
}

impl Access {
    /// Vault's role for it.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::Read => "invoices-reader",
            Self::Write => "invoices-writer",
            Self::Approve => "invoices-approver",
        }
    }
}

/// The caller, and the call's context with the deadline.
#[derive(Clone, Debug)]
pub(crate) struct CallerContext {
    pub(crate) caller: VerifiedCaller,
    pub(crate) context: CallContext,
}

/// An idempotent operation in one transaction. It is retried when a connection breaks.
pub(crate) trait StoreOperation: Sync {
    /// Its name in traces.
    const NAME: &'static str;

    type Output: Send;

    fn access(&self) -> Access;

    /// The texts that its statements bind, besides those of the scope.
    fn bound_texts(&self) -> Vec<&str>;

    fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;
}

/// The store of invoices.
#[derive(Debug)]
pub(crate) enum Store {
    Sqlite(SqlitePool),
    Postgres(Box<PostgresStore>),
}

impl Store {
    /// Opens an SQLite file and migrates it.
    pub(crate) async fn file(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let options = options.journal_mode(SqliteJournalMode::Wal).create_if_missing(true);
        Self::sqlite(options, SQLITE_CONNECTIONS_MAX).await
    }

    /// Opens SQLite in memory and migrates it. All data is lost with its single connection.
    pub(crate) async fn memory() -> Result<Self, StoreError> {
        Self::sqlite(SqliteConnectOptions::new().in_memory(true), 1).await
    }

    async fn sqlite(
        options: SqliteConnectOptions,
        connections_max: u32,
    ) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(connections_max)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.foreign_keys(true).busy_timeout(SQLITE_BUSY_TIMEOUT))
            .await?;
        migrate::migrate_sqlite(&pool).await?;
        Ok(Self::Sqlite(pool))
    }

    /// Runs an operation within the call's deadline.
    pub(crate) async fn run<W: StoreOperation>(
        &self,
        call: &CallerContext,
        operation: &W,
    ) -> Result<W::Output, StoreError> {
        let scope = Scope::of(call.caller.principal(), operation.access());
        if operation
            .bound_texts()
            .into_iter()
            .chain(scope.bound_texts())
            .any(|text| text.contains('\0'))
        {
            return Err(StoreError::Nul);
        }
        let span = self.span(W::NAME);
        let execution = async {
            match self {
                Self::Sqlite(pool) => {
                    let working = async {
                        // A write locks the database at once: upgrading a read transaction could not
                        // wait for the lock.
                        let begin = if operation.access() == Access::Read {
                            "BEGIN"
                        } else {
                            "BEGIN IMMEDIATE"
                        };
                        let mut transaction = Transaction::Sqlite(pool.begin_with(begin).await?);
                        let result = operation.run(&mut transaction, &scope).await?;
                        transaction.commit().await?;
                        Ok(result)
                    };
                    // sqlx enters the current span on a thread of its own. Where services share a
                    // process that thread has no subscriber, and the span would never close.
                    working.with_subscriber(NoSubscriber::default()).await
                }
                Self::Postgres(store) => store.run(call, operation, &scope).await,
            }
        };
        let execution = timeout(call.context.remaining(), execution).instrument(span.clone());
        let result = Box::pin(execution).await.unwrap_or(Err(StoreError::Timeout));
        if let Err(error) = &result {
            span.record("error.type", error.word()).record("otel.status_code", "ERROR");
        }
        result
    }

    /// The span of an operation, by OpenTelemetry's conventions, without parameters.
    fn span(&self, name: &'static str) -> Span {
        let system = match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgresql",
        };
        tracing::info_span!(
            "database",
            otel.name = format!("{name} invoices"),
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = system,
            db.operation.name = name,
            db.collection.name = "invoices",
            error.type = Empty,
        )
    }

    /// Closes all connections and revokes all credentials.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}

/// The settings of a PostgreSQL store.
pub(crate) struct PostgresSettings {
    pub(crate) credentials: Credentials,
    pub(crate) readiness: Readiness,
    /// Whether the service can log in to Vault in its own name.
    pub(crate) has_own_login: bool,
    pub(crate) connections_max: u32,
}
