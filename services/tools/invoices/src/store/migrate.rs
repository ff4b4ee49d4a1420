//! Migrates the database schema.

use std::sync::LazyLock;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    Connection as _, Executor as _, PgConnection, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgConnectOptions,
};

use super::StoreError;

/// The PostgreSQL schema of this service's tables.
pub(super) const SCHEMA: &str = "invoices";

pub(super) static SQLITE: LazyLock<Migrator> = LazyLock::new(|| {
    migrator([(1, "invoices", include_str!("../../migrations/sqlite/0001_invoices.sql"))])
});
static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
    migrator([(1, "invoices", include_str!("../../migrations/postgres/0001_invoices.sql"))])
});

/// Migrations by version, description and SQL. None of them may change once it was released.
fn migrator<const N: usize>(migrations: [(i64, &'static str, &'static str); N]) -> Migrator {
    let migration = |(version, description, sql): (_, &'static str, &'static str)| {
        let (description, sql) = (description.into(), sql.into_sql_str());
        Migration::new(version, description, MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(migrations.map(migration).into())
}

/// The schema version that this service requires.
pub(super) fn required_version() -> i64 {
    POSTGRES.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Migrates a PostgreSQL to the required version, as a member of `invoices_owner`.
pub(crate) async fn migrate(
    options: &PgConnectOptions,
    username: &str,
    password: &SecretString,
) -> Result<i64, StoreError> {
    let options = options.clone().username(username).password(password.expose_secret());
    let mut connection =
        PgConnection::connect_with(&options.options([("search_path", SCHEMA)])).await?;
    // Objects must belong to a permanent role: this user may be revoked.
    connection.execute("SET ROLE invoices_owner").await?;
    POSTGRES.run(&mut connection).await?;
    connection.close().await?;
    Ok(required_version())
}
