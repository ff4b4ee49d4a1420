use std::str::FromStr as _;

use sqlx::{
    postgres::{PgConnectOptions, PgSslMode},
    sqlite::SqliteConnectOptions,
};
use url::{Host, Url};

const MEMORY: &str = "sqlite::memory:";

/// The database URL is invalid. The error does not quote it: it may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// It is not the URL of a supported database.
    #[error("the database URL must be postgres://host/database, sqlite:path or sqlite::memory:")]
    Unknown,
    /// It contains a user or a password.
    #[error("the database URL must not contain a user or password: Vault issues them per caller")]
    Credentials,
}

/// The database of invoices.
#[derive(Clone, Debug)]
pub(crate) enum DatabaseUrl {
    /// PostgreSQL, without a user.
    Postgres(Box<PgConnectOptions>),
    /// SQLite, in a file.
    SqliteFile(Box<SqliteConnectOptions>),
    /// SQLite, in memory.
    SqliteMemory,
}

impl DatabaseUrl {
    /// Parses `postgres://host/database`, `sqlite:path` or `sqlite::memory:`.
    ///
    /// # Errors
    /// When it is another URL, or contains a user or a password.
    pub(crate) fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        if text == MEMORY {
            return Ok(Self::SqliteMemory);
        }
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(Self::SqliteFile(SqliteConnectOptions::new().filename(path).into()));
        }
        let url = Url::parse(text).map_err(|_| DatabaseUrlError::Unknown)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") || url.host().is_none() {
            return Err(DatabaseUrlError::Unknown);
        }
        let has_parameter =
            |wanted: &[&str]| url.query_pairs().any(|(name, _)| wanted.contains(&name.as_ref()));
        if !url.username().is_empty()
            || url.password().is_some()
            || has_parameter(&["user", "password"])
        {
            return Err(DatabaseUrlError::Credentials);
        }
        // Ignores a user and a password in the environment.
        let options = PgConnectOptions::from_str(text).map_err(|_| DatabaseUrlError::Unknown)?;
        let mut options = options.username("").password("").application_name("drawbridge-invoices");
        if !has_parameter(&["sslmode", "ssl-mode"]) {
            let mode = if is_loopback(&url) { PgSslMode::Prefer } else { PgSslMode::VerifyFull };
            options = options.ssl_mode(mode);
        }
        Ok(Self::Postgres(options.into()))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain("localhost")) => true,
        // For this scheme, `Url` does not parse IP addresses.
        Some(Host::Domain(name)) => {
            name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_user_or_password_is_rejected_without_quoting_it() {
        for text in [
            "postgres://app@db/invoices",
            "postgres://app:hunter2@db/invoices",
            "postgres://:hunter2@db/invoices",
            "postgres://db/invoices?user=app",
            "postgresql://db/invoices?password=hunter2",
        ] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert_eq!(error, DatabaseUrlError::Credentials, "{text}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        for text in [
            "",
            "sqlite:",
            "invoices.db",
            "mysql://db/invoices",
            "postgres:invoices",
            "postgres:///invoices",
        ] {
            assert!(DatabaseUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_remote_database_must_be_verified_by_tls() {
        for (text, mode) in [
            ("postgres://db.internal/invoices", "VerifyFull"),
            ("postgres://db.internal/invoices?sslmode=require", "Require"),
            ("postgres://127.0.0.1:5432/invoices", "Prefer"),
            ("postgres://localhost/invoices", "Prefer"),
            ("postgres://[::1]/invoices", "Prefer"),
        ] {
            let Ok(DatabaseUrl::Postgres(options)) = DatabaseUrl::parse(text) else {
                panic!("{text}")
            };
            assert_eq!(format!("{:?}", options.get_ssl_mode()), mode, "{text}");
        }
    }
}
