//! Migrates the database schema.

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    Connection as _, Executor as _, PgConnection, migrate::Migrator, postgres::PgConnectOptions,
};

use super::StoreError;

/// The PostgreSQL schema of this service's tables.
pub(super) const SCHEMA: &str = "invoices";

pub(super) static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

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
