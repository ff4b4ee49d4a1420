//! PostgreSQL, in which every caller is a user of their own: one that Vault has made for the caller's lease.
//!
//! A user's connections are few, and closed when the lease ends. Who is the caller stands in the user's name, as a hash
//! that the schema compares with the principal that the connection states (migrations/postgres).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use drawbridge_sdk::{
    Readiness,
    credentials::{Credentials, DatabaseLease},
    identity::Principal,
};
use moka::{
    future::{Cache, FutureExt as _},
    policy::EvictionPolicy,
};
use secrecy::ExposeSecret as _;
use sqlx::{
    AssertSqlSafe, PgExecutor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::OnceCell;

use super::{Asking, Scope, Serving, StoreError, Transaction, Work, migrate};

/// Connections of one user.
const CONNECTIONS_OF_USER: u32 = 2;
/// A connection that nobody uses for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// The longest that getting a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a schema that is not at its version is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A PostgreSQL.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    options: PgConnectOptions,
    credentials: Credentials,
    /// By the name of the database user.
    users: Cache<String, Arc<User>>,
    readiness: Readiness,
    looking: Arc<AtomicBool>,
}

/// A database user with its connections.
#[derive(Debug)]
struct User {
    pool: PgPool,
    /// Set once the schema was seen to be at its version.
    checked: OnceCell<()>,
}

impl PostgresStore {
    /// The database of `options`, with `serving.connections_max` connections at most.
    pub(crate) fn new(options: PgConnectOptions, serving: Serving) -> Self {
        let users_max = (serving.connections_max / CONNECTIONS_OF_USER).max(1);
        let users = Cache::builder()
            .max_capacity(users_max.into())
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(IDLE)
            .async_eviction_listener(|_, user: Arc<User>, _| {
                // Connections that are in use are closed as they come back.
                tokio::spawn(async move { user.pool.close().await });
                std::future::ready(()).boxed()
            })
            .build();
        Self {
            options,
            credentials: serving.credentials,
            users,
            readiness: serving.readiness,
            looking: Arc::default(),
        }
    }

    /// Does a work as the caller's own user, and once more as another when that user has gone.
    pub(super) async fn run<W: Work>(
        &self,
        asking: &Asking,
        work: &W,
        scope: &Scope,
    ) -> Result<W::Done, StoreError> {
        let role = work.access().role();
        let lease = self.credentials.database(&asking.caller, &asking.context, role).await?;
        let gone = match self.try_with(&lease, asking, work, scope).await {
            Err(Tried::UserGone(error)) => error,
            Err(Tried::Failed(error)) => return Err(error),
            Ok(done) => return Ok(done),
        };
        tracing::info!(error = %gone, user = lease.username, "a database user has gone; taking another");
        self.users.invalidate(&lease.username).await;
        self.credentials.give_up(&asking.caller, role, &lease).await;
        let lease = self.credentials.database(&asking.caller, &asking.context, role).await?;
        self.try_with(&lease, asking, work, scope).await.map_err(|tried| match tried {
            Tried::UserGone(error) => StoreError::Unavailable(error),
            Tried::Failed(error) => error,
        })
    }

    async fn try_with<W: Work>(
        &self,
        lease: &Arc<DatabaseLease>,
        asking: &Asking,
        work: &W,
        scope: &Scope,
    ) -> Result<W::Done, Tried> {
        let user = self.user(lease, asking.caller.principal()).await;
        match self.work(&user, lease, asking, work, scope).await {
            Err(StoreError::Database(error) | StoreError::Unavailable(error))
                if is_gone(&error, &user.pool).await =>
            {
                Err(Tried::UserGone(error))
            }
            done => done.map_err(Tried::Failed),
        }
    }

    async fn work<W: Work>(
        &self,
        user: &User,
        lease: &Arc<DatabaseLease>,
        asking: &Asking,
        work: &W,
        scope: &Scope,
    ) -> Result<W::Done, StoreError> {
        let timeout_ms = asking.context.remaining().as_millis().max(1);
        let begin = format!("BEGIN; SET LOCAL statement_timeout = {timeout_ms}");
        let mut transaction = user.pool.begin_with(AssertSqlSafe(begin)).await?;
        // On the same connection: one that was just given back is not there yet, and another would be made.
        let checking = user.checked.get_or_try_init(|| check(&mut *transaction, &user.pool)).await;
        if let Err(error) = checking {
            self.note_schema(&error, user, lease);
            return Err(error);
        }
        let mut transaction = Transaction::Postgres(transaction);
        let done = work.run(&mut transaction, scope).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// The user of a lease, with no connection yet.
    async fn user(&self, lease: &Arc<DatabaseLease>, principal: &Principal) -> Arc<User> {
        let opening = async {
            let options = self
                .options
                .clone()
                .username(&lease.username)
                .password(lease.password.expose_secret())
                .options([
                    ("search_path", migrate::SCHEMA),
                    ("drawbridge.principal", principal.as_str()),
                ]);
            let pool = PgPoolOptions::new()
                .max_connections(CONNECTIONS_OF_USER)
                .idle_timeout(IDLE)
                .max_lifetime(None)
                .acquire_timeout(CONNECT_TIMEOUT)
                .test_before_acquire(false)
                .connect_lazy_with(options);
            let (users, lease, closing) = (self.users.clone(), Arc::clone(lease), pool.clone());
            tokio::spawn(async move {
                if closing.close_event().do_until(lease.ended()).await.is_ok() {
                    users.invalidate(&lease.username).await;
                }
            });
            Arc::new(User { pool, checked: OnceCell::new() })
        };
        self.users.get_with_by_ref(&lease.username, opening).await
    }

    /// Says that the service is not ready while the schema is not at its version, and looks at it again.
    fn note_schema(&self, error: &StoreError, user: &User, lease: &Arc<DatabaseLease>) {
        if !matches!(error, StoreError::Schema { .. }) || self.looking.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.readiness.not_ready(error.to_string());
        let (looking, readiness) = (Arc::clone(&self.looking), self.readiness.clone());
        let (pool, lease) = (user.pool.clone(), Arc::clone(lease));
        tokio::spawn(async move {
            // When the lease has ended nobody can look: the next call finds out.
            while lease.is_usable()
                && matches!(check(&pool, &pool).await, Err(StoreError::Schema { .. }))
            {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            looking.store(false, Ordering::Release);
            readiness.ready();
        });
    }

    pub(super) async fn close(&self) {
        self.users.invalidate_all();
        self.users.run_pending_tasks().await;
        self.credentials.close().await;
    }
}

/// How a try went wrong.
enum Tried {
    /// The database does not know the user any more, or has broken the connection.
    UserGone(sqlx::Error),
    Failed(StoreError),
}

/// Whether the schema is at its version, as a connection of the pool sees it.
async fn check(connection: impl PgExecutor<'_>, pool: &PgPool) -> Result<(), StoreError> {
    let needed = migrate::version();
    let reading = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success");
    let found: Option<i64> = match reading.fetch_one(connection).await {
        Ok(found) => found,
        Err(error) if is_missing(&error) && !is_gone(&error, pool).await => None,
        Err(error) => return Err(error.into()),
    };
    if found == Some(needed) { Ok(()) } else { Err(StoreError::Schema { found, needed }) }
}

/// `undefined_table`, `undefined_object` or `insufficient_privilege`: what a user without its roles sees.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42P01" | "42704" | "42501"))
}

/// Whether an error comes of a user who is not known any more, or of a connection that has broken.
async fn is_gone(error: &sqlx::Error, pool: &PgPool) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolClosed => true,
        sqlx::Error::Database(inner) => match inner.code().as_deref() {
            // `invalid_authorization_specification`, `connection_exception`, and being sent away.
            Some(code) if code.starts_with("28") || code.starts_with("08") => true,
            Some("57P01" | "57P02") => true,
            // A user who is dropped keeps the connection and loses the roles.
            _ if is_missing(error) => {
                sqlx::query("SELECT session_user::text").execute(pool).await.is_err()
            }
            _ => false,
        },
        _ => false,
    }
}
