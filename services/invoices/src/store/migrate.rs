//! The schema of the database, and who may change it.

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    Connection as _, Executor as _, PgConnection, migrate::Migrator, postgres::PgConnectOptions,
};

use super::StoreError;

/// The schema that holds all of this service's tables.
pub(super) const SCHEMA: &str = "invoices";

pub(super) static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// The version of the schema that this service is made for.
pub(super) fn version() -> i64 {
    POSTGRES.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Brings a PostgreSQL to the schema of this version, as a user who is a member of `invoices_owner`.
pub(crate) async fn migrate(
    options: &PgConnectOptions,
    username: &str,
    password: &SecretString,
) -> Result<i64, StoreError> {
    let options = options.clone().username(username).password(password.expose_secret());
    let mut connection =
        PgConnection::connect_with(&options.options([("search_path", SCHEMA)])).await?;
    // What is made belongs to a role that stays when this user has gone.
    connection.execute("SET ROLE invoices_owner").await?;
    POSTGRES.run(&mut connection).await?;
    connection.close().await?;
    Ok(version())
}
