//! Migrates the database schema.
//!
//! INVARIANT: the version of the service before this one works on the schema of this one, because
//! it serves while the schema is migrated and afterwards (docs/how-to/deploy.md#database). So a
//! migration only adds, and what it replaces is removed by a later version.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use drawbridge_sdk::backoff::ReconnectDelays;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    Connection as _, Executor as _, PgConnection, PgExecutor, SqlSafeStr as _, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    postgres::PgConnectOptions,
};

use super::StoreError;

/// The PostgreSQL schema of this service's tables.
pub(super) const SCHEMA: &str = "invoices";
/// How long a statement of a migration waits for a lock. Statements of callers queue behind it.
const LOCK_TIMEOUT: &str = "1s";
/// How long locks are tried: another migration, or a transaction, may hold them.
const LOCKS_TIMEOUT: Duration = Duration::from_secs(300);
/// `lock_not_available`, `deadlock_detected`.
const LOCK_CODES: [&str; 2] = ["55P03", "40P01"];
/// SQLite's migrator has no lock: of two processes that create a file at once, one fails once.
const SQLITE_ATTEMPTS: usize = 5;

static SQLITE: LazyLock<Migrator> = LazyLock::new(|| {
    migrator([(1, "invoices", include_str!("../../migrations/sqlite/0001_invoices.sql"))])
});
static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
    migrator([(1, "invoices", include_str!("../../migrations/postgres/0001_invoices.sql"))])
});

/// Migrations by version, description and SQL. None of them may change once it was released.
pub(crate) fn migrator<const N: usize>(
    migrations: [(i64, &'static str, &'static str); N],
) -> Migrator {
    let migration = |(version, description, sql): (_, &'static str, &'static str)| {
        let (description, sql) = (description.into(), sql.into_sql_str());
        Migration::new(version, description, MigrationType::Simple, sql, false)
    };
    let mut migrator = Migrator::with_migrations(migrations.map(migration).into());
    // A newer version of the service may have migrated it further.
    migrator.set_ignore_missing(true);
    migrator
}

/// The schema version that this service requires.
pub(super) fn required_version() -> i64 {
    POSTGRES.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// The version that the schema has.
pub(super) async fn version(connection: impl PgExecutor<'_>) -> sqlx::Result<Option<i64>> {
    let query = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success");
    query.fetch_one(connection).await
}

/// Migrates a PostgreSQL to the required version, as a member of `invoices_owner`. Returns the
/// version that it has then, which may be newer.
pub(crate) async fn migrate(
    options: &PgConnectOptions,
    username: &str,
    password: &SecretString,
) -> Result<i64, StoreError> {
    let options = options.clone().username(username).password(password.expose_secret());
    migrate_by(&POSTGRES, &options).await
}

/// Runs migrations as the user of `options`. It gives way to callers: where a lock is not free, it
/// tries again later.
pub(crate) async fn migrate_by(
    migrator: &Migrator,
    options: &PgConnectOptions,
) -> Result<i64, StoreError> {
    let began = Instant::now();
    let mut delays = ReconnectDelays::default();
    loop {
        match attempt(migrator, options).await {
            Err(StoreError::Migrate(error)) if is_locked(&error) => {
                if began.elapsed() > LOCKS_TIMEOUT {
                    return Err(StoreError::Migrate(error));
                }
                tracing::info!(%error, "another migration or transaction holds a lock; retrying");
                delays.wait().await;
            }
            migrated => return migrated,
        }
    }
}

async fn attempt(migrator: &Migrator, options: &PgConnectOptions) -> Result<i64, StoreError> {
    let settings = [("search_path", SCHEMA), ("lock_timeout", LOCK_TIMEOUT)];
    let mut connection = PgConnection::connect_with(&options.clone().options(settings)).await?;
    // Objects must belong to a permanent role: this user may be revoked.
    connection.execute("SET ROLE invoices_owner").await?;
    // It holds an advisory lock, so of several migrators one migrates.
    migrator.run(&mut connection).await?;
    let version = version(&mut connection).await?;
    connection.close().await?;
    Ok(version.unwrap_or_default())
}

fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| LOCK_CODES.contains(&code.as_ref()))
}

/// Migrates an SQLite database to the version of this service.
pub(super) async fn migrate_sqlite(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut delays = ReconnectDelays::default();
    for _ in 1..SQLITE_ATTEMPTS {
        if SQLITE.run(pool).await.is_ok() {
            return Ok(());
        }
        delays.wait().await;
    }
    Ok(SQLITE.run(pool).await?)
}
