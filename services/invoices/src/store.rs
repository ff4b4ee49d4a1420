//! Where invoices are kept: PostgreSQL with a user for each caller, or SQLite for a mesh on one machine.
//!
//! What is asked of either is a [`Work`], written once. Every work can be done twice without harm: a read, or a write
//! that its key makes idempotent. So it is tried again when a database user has gone in the midst of it.

use std::time::Duration;

use drawbridge_sdk::{
    CallContext, Readiness,
    credentials::{Credentials, CredentialsError},
    identity::Caller,
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tokio::time::timeout;
use tracing::{Instrument as _, Span, field::Empty};

pub(crate) mod approve;
mod columns;
pub(crate) mod find;
mod migrate;
mod postgres;
mod row;
pub(crate) mod save;
mod scope;
pub(crate) mod search;
mod transaction;
mod url;

pub(crate) use columns::Columns;
pub(crate) use migrate::migrate;
pub(crate) use postgres::PostgresStore;
pub(crate) use row::Stored;
pub(crate) use scope::Scope;
pub(crate) use transaction::Transaction;
pub(crate) use url::DatabaseUrl;
pub use url::DatabaseUrlError;

/// Connections to a file of SQLite.
const SQLITE_CONNECTIONS_MAX: u32 = 4;
/// How long SQLite waits for another writer.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the store cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no credential for it.
    #[error("no credentials for the database")]
    Credentials(#[from] CredentialsError),
    /// The database gives no answer now.
    #[error("the database gives no answer")]
    Unavailable(#[source] sqlx::Error),
    /// It does not do the work in time.
    #[error("the database does not answer in time")]
    Timeout,
    /// Its schema is not the one that this service is made for.
    #[error("the database's schema has {}, and this service needs version {needed}: run `migrate`",
        found.map_or_else(|| "no version".to_owned(), |found| format!("version {found}")))]
    Schema {
        /// The version that it has.
        found: Option<i64>,
        /// The version that it should have.
        needed: i64,
    },
    /// The same number, supplier and date are stored already, with another document.
    #[error("another document with this number, supplier and date is stored already, as {id}")]
    OtherDocument {
        /// The invoice that is stored.
        id: String,
    },
    /// SQLite would take a text for what stands before a NUL, and PostgreSQL has none.
    #[error("a text must not contain NUL")]
    Nul,
    /// It cannot be migrated.
    #[error("cannot migrate the database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database fails.
    #[error("the database fails")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            // `query_canceled`: the statement's own deadline, which is the call's.
            sqlx::Error::Database(ref inner) if inner.code().as_deref() == Some("57014") => {
                Self::Timeout
            }
            error => Self::Database(error),
        }
    }
}

/// What a database user may do. Each is a role of the database engine in Vault, and a group role in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// See what is one's own or shared with one's tenant.
    Read,
    /// Store and change what is one's own.
    Write,
    /// See and approve whatever one's tenant has.
    Approve,
}

impl Access {
    /// The role that Vault gives for it.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::Read => "invoices-reader",
            Self::Write => "invoices-writer",
            Self::Approve => "invoices-approver",
        }
    }
}

/// Who asks, and for how long they wait.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) caller: Caller,
    pub(crate) context: CallContext,
}

/// Something that is asked of a database, in one transaction. It is done again when a connection breaks.
pub(crate) trait Work: Sync {
    /// What it is called in traces.
    const NAME: &'static str;

    type Done: Send;

    fn access(&self) -> Access;

    /// The texts that its statements take, besides those of the scope.
    fn texts(&self) -> Vec<&str>;

    fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> impl Future<Output = Result<Self::Done, StoreError>> + Send;
}

/// Where invoices are kept.
#[derive(Debug)]
pub(crate) enum Store {
    Sqlite(SqlitePool),
    Postgres(Box<PostgresStore>),
}

impl Store {
    /// SQLite in a file, with its schema.
    pub(crate) async fn file(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let options = options.journal_mode(SqliteJournalMode::Wal).create_if_missing(true);
        Self::sqlite(options, SQLITE_CONNECTIONS_MAX).await
    }

    /// SQLite in memory, with its schema: there is one connection, and with it all goes.
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
        migrate::SQLITE.run(&pool).await?;
        Ok(Self::Sqlite(pool))
    }

    /// Does a work within the caller's deadline.
    pub(crate) async fn run<W: Work>(
        &self,
        asking: &Asking,
        work: &W,
    ) -> Result<W::Done, StoreError> {
        let scope = Scope::of(asking.caller.principal(), work.access());
        if work.texts().into_iter().chain(scope.texts()).any(|text| text.contains('\0')) {
            return Err(StoreError::Nul);
        }
        let span = self.span(W::NAME);
        let doing = async {
            match self {
                Self::Sqlite(pool) => {
                    // Who writes takes its turn first: a read that turns into a write could not wait.
                    let begin =
                        if work.access() == Access::Read { "BEGIN" } else { "BEGIN IMMEDIATE" };
                    let mut transaction = Transaction::Sqlite(pool.begin_with(begin).await?);
                    let done = work.run(&mut transaction, &scope).await?;
                    transaction.commit().await?;
                    Ok(done)
                }
                Self::Postgres(store) => store.run(asking, work, &scope).await,
            }
        };
        let doing = timeout(asking.context.remaining(), doing).instrument(span.clone());
        let done = Box::pin(doing).await.unwrap_or(Err(StoreError::Timeout));
        if done.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        done
    }

    /// The span of a work, by OpenTelemetry's conventions. Parameters are in none.
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
        )
    }

    /// Closes all connections and gives all credentials back.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}

/// What a PostgreSQL needs.
pub(crate) struct Serving {
    pub(crate) credentials: Credentials,
    pub(crate) readiness: Readiness,
    pub(crate) connections_max: u32,
}
