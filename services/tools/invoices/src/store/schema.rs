//! Whether the database has the schema version that this service requires.
//!
//! A service with a Vault login of its own checks it at start. The first call of each database user
//! checks it too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use drawbridge_sdk::{
    Condition, Effect, Readiness,
    backoff::ReconnectDelays,
    credentials::{Credentials, CredentialsError, DatabaseLease},
};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection, PgExecutor, PgPool, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use super::{
    StoreError,
    errors::{is_missing, is_user_lost},
    migrate,
};

/// Vault's role for the service itself. Its users are no callers', so they see no invoices.
const OBSERVER: &str = "invoices-observer";
/// The interval between checks of a schema that is too old.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The longest delay between checks while Vault or the database is unavailable.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the version, and is a condition of the service's readiness.
#[derive(Debug)]
pub(super) struct Schema {
    condition: Condition,
    observer: Option<Observer>,
    is_watched: AtomicBool,
}

/// The service's own access to the version.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) options: PgConnectOptions,
    pub(super) credentials: Credentials,
}

/// Who asks the database for the version.
enum Asker {
    Service,
    /// The caller that found it too old.
    Caller {
        pool: PgPool,
        lease: Arc<DatabaseLease>,
    },
}

impl Schema {
    pub(super) fn new(readiness: &Readiness, observer: Option<Observer>) -> Self {
        let condition = readiness.condition("schema", Effect::Required);
        if observer.is_none() {
            // The first call checks it.
            condition.set(Ok(()));
        }
        Self { condition, observer, is_watched: AtomicBool::new(false) }
    }

    /// Checks the version as the service itself, if it has a login, until it is sufficient.
    pub(super) async fn check_at_start(self: Arc<Self>) {
        if self.observer.is_some() && !self.is_watched.swap(true, Ordering::AcqRel) {
            self.watch(Asker::Service).await;
        }
    }

    /// Marks the service as not ready until a check finds a sufficient version, if a caller's user
    /// has found it too old.
    pub(super) fn report(
        self: &Arc<Self>,
        error: &StoreError,
        pool: &PgPool,
        lease: &Arc<DatabaseLease>,
    ) {
        if !matches!(error, StoreError::Schema { .. })
            || self.is_watched.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.condition.set(Err(error.to_string()));
        let asker = match self.observer {
            Some(_) => Asker::Service,
            None => Asker::Caller { pool: pool.clone(), lease: Arc::clone(lease) },
        };
        tokio::spawn(Arc::clone(self).watch(asker));
    }

    /// Checks until the version is sufficient, or cannot be checked.
    async fn watch(self: Arc<Self>, asker: Asker) {
        let mut delays = ReconnectDelays::new(RECHECK_INTERVAL, RETRY_DELAY_MAX);
        let mut is_too_old = false;
        loop {
            let error = match self.check(&asker).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if matches!(error, StoreError::Schema { .. }) {
                is_too_old = true;
                self.condition.set(Err(error.to_string()));
                sleep(RECHECK_INTERVAL).await;
                continue;
            }
            let is_transient = match &error {
                StoreError::Credentials(CredentialsError::Closed) => false,
                StoreError::Credentials(error) => error.is_retryable(),
                _ => true,
            };
            // Without an answer the next call checks it.
            if !is_transient || matches!(asker, Asker::Caller { .. }) {
                tracing::warn!(%error, "the version of the schema cannot be checked");
                break;
            }
            if !is_too_old {
                self.condition.set(Ok(()));
            }
            delays.wait().await;
        }
        self.is_watched.store(false, Ordering::Release);
        self.condition.set(Ok(()));
    }

    async fn check(&self, asker: &Asker) -> Result<(), StoreError> {
        let check = async {
            match (asker, &self.observer) {
                (Asker::Caller { pool, lease }, _) if lease.is_usable() => {
                    check_version(pool, pool).await
                }
                (Asker::Service, Some(observer)) => observer.check().await,
                _ => Err(StoreError::Timeout),
            }
        };
        timeout(CHECK_TIMEOUT, check).await.unwrap_or(Err(StoreError::Timeout))
    }
}

impl Observer {
    async fn check(&self) -> Result<(), StoreError> {
        let lease = self.credentials.service_database(OBSERVER).await?;
        let options = self
            .options
            .clone()
            .username(&lease.username)
            .password(lease.password.expose_secret())
            .options([("search_path", migrate::SCHEMA)]);
        let mut connection = PgConnection::connect_with(&options).await?;
        let found = match migrate::version(&mut connection).await {
            Err(error) if is_missing(&error) => None,
            found => found?,
        };
        connection.close().await?;
        require(found)
    }
}

/// Checks the version as a caller's database user.
pub(super) async fn check_version(
    connection: impl PgExecutor<'_>,
    pool: &PgPool,
) -> Result<(), StoreError> {
    match migrate::version(connection).await {
        Err(error) if is_missing(&error) && !is_user_lost(&error, pool).await => require(None),
        found => require(found?),
    }
}

/// A newer version is sufficient: migrations run beside the version before (docs/how-to/deploy.md).
fn require(found: Option<i64>) -> Result<(), StoreError> {
    let needed = migrate::required_version();
    if found >= Some(needed) { Ok(()) } else { Err(StoreError::Schema { found, needed }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_schema_is_refused_and_a_newer_one_is_sufficient() {
        let needed = migrate::required_version();
        assert!(require(Some(needed)).is_ok() && require(Some(needed + 1)).is_ok());
        for found in [None, Some(needed - 1)] {
            let error = require(found).unwrap_err().to_string();
            assert!(error.contains(&format!("version {needed} or later")), "{error}");
        }
    }
}
