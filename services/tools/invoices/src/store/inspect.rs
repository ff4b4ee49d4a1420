//! What an operator checks of the database, apart from any caller.

use std::str::FromStr as _;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use url::Url;

use super::{DatabaseUrl, StoreError, migrate, postgres};

/// What was found at the URL of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseReport {
    /// SQLite, which needs no server.
    Embedded,
    /// A PostgreSQL answers. The URL has no user, so nothing else is known.
    Answers,
    /// A user of PostgreSQL could connect.
    Connected {
        /// The version of PostgreSQL.
        version: String,
        /// The version of the schema. Absent: the schema is missing, or the user may not read it.
        schema: Option<i64>,
        /// The version that this release needs.
        required_schema: i64,
    },
}

/// Inspects the database at a URL. In contrast to the service's own option, it may contain a user
/// and a password.
///
/// # Errors
/// When the URL is invalid, the server does not answer, or it refuses the user.
pub async fn inspect_database(url: &SecretString) -> Result<DatabaseReport, StoreError> {
    let text = url.expose_secret();
    match DatabaseUrl::parse(text) {
        Ok(DatabaseUrl::SqliteFile(_) | DatabaseUrl::SqliteMemory) => Ok(DatabaseReport::Embedded),
        Ok(DatabaseUrl::Postgres(options)) => {
            postgres::ask_server(&options).await.map_err(sqlx::Error::Io)?;
            Ok(DatabaseReport::Answers)
        }
        Err(_) if Url::parse(text).is_ok_and(|url| url.scheme().starts_with("postgres")) => {
            connect(&PgConnectOptions::from_str(text)?).await
        }
        Err(error) => Err(sqlx::Error::Configuration(error.into()).into()),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<DatabaseReport, StoreError> {
    let options = options.clone().options([("search_path", migrate::SCHEMA)]);
    let mut connection = PgConnection::connect_with(&options).await?;
    let version = sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection).await?;
    // Without the table, or without a permission for it, there is no version.
    let schema = migrate::version(&mut connection).await.unwrap_or_default();
    connection.close().await?;
    Ok(DatabaseReport::Connected { version, schema, required_schema: migrate::required_version() })
}
