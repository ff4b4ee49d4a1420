//! The PostgreSQL store. Every caller has its own database user, which Vault creates for the
//! caller's lease.
//!
//! A user's connections are few, and are closed when the lease ends. The user's name contains a
//! hash of the principal, which the schema compares with the principal that the connection states
//! (migrations/postgres).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use drawbridge_sdk::{
    Condition, Effect,
    credentials::{Credentials, DatabaseLease},
    transaction_token::Principal,
};
use futures::future::BoxFuture;
use moka::{
    future::{Cache, FutureExt as _},
    policy::EvictionPolicy,
};
use secrecy::ExposeSecret as _;
use sqlx::{
    AssertSqlSafe, PgExecutor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::OnceCell,
};

use super::{
    CallerContext, PostgresSettings, Scope, StoreError, StoreOperation, Transaction, migrate,
};

/// The maximum number of connections per user.
const CONNECTIONS_PER_USER: u32 = 2;
/// Idle connections and users are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long acquiring a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// "Do you speak TLS?": its length and its code (PostgreSQL, Message Formats).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The interval for rechecking a schema with the wrong version.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A PostgreSQL store.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    options: PgConnectOptions,
    credentials: Credentials,
    /// The users by name.
    users: Cache<String, Arc<User>>,
    /// Whether the schema has the required version, as far as callers' users have seen.
    schema: Arc<Condition>,
    is_rechecking: Arc<AtomicBool>,
}

/// A database user with its connections.
#[derive(Debug)]
struct User {
    pool: PgPool,
    /// Set once the schema version was verified.
    checked: OnceCell<()>,
}

impl PostgresStore {
    /// The database of `options`, with at most `settings.connections_max` connections.
    pub(crate) fn new(options: PgConnectOptions, settings: PostgresSettings) -> Self {
        let schema = settings.readiness.condition("schema", Effect::Required);
        // The first call checks it.
        schema.set(Ok(()));
        let users_max = (settings.connections_max / CONNECTIONS_PER_USER).max(1);
        let users = Cache::builder()
            .max_capacity(users_max.into())
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(IDLE_TIMEOUT)
            .async_eviction_listener(|_, user: Arc<User>, _| {
                // Connections in use are closed when they are released.
                tokio::spawn(async move { user.pool.close().await });
                std::future::ready(()).boxed()
            })
            .build();
        Self {
            options,
            credentials: settings.credentials,
            users,
            schema: Arc::new(schema),
            is_rechecking: Arc::default(),
        }
    }

    /// Runs an operation as the caller's database user, and retries once with a new user if that
    /// user was revoked.
    pub(super) async fn run<W: StoreOperation>(
        &self,
        call: &CallerContext,
        operation: &W,
        scope: &Scope,
    ) -> Result<W::Output, StoreError> {
        let role = operation.access().role();
        let lease = self.credentials.database(&call.caller, &call.context, role).await?;
        let error = match self.attempt(&lease, call, operation, scope).await {
            Err(AttemptError::UserLost(error)) => error,
            Err(AttemptError::Failed(error)) => return Err(error),
            Ok(result) => return Ok(result),
        };
        tracing::info!(error = %error, user = lease.username, "a database user was revoked; \
            retrying with a new one");
        self.users.invalidate(&lease.username).await;
        self.credentials.discard_lease(&call.caller, role, &lease).await;
        let lease = self.credentials.database(&call.caller, &call.context, role).await?;
        self.attempt(&lease, call, operation, scope).await.map_err(|error| match error {
            AttemptError::UserLost(error) => StoreError::Unavailable(error),
            AttemptError::Failed(error) => error,
        })
    }

    async fn attempt<W: StoreOperation>(
        &self,
        lease: &Arc<DatabaseLease>,
        call: &CallerContext,
        operation: &W,
        scope: &Scope,
    ) -> Result<W::Output, AttemptError> {
        let user = self.user(lease, call.caller.principal()).await;
        match self.operation(&user, lease, call, operation, scope).await {
            Err(StoreError::Database(error) | StoreError::Unavailable(error))
                if is_user_lost(&error, &user.pool).await =>
            {
                Err(AttemptError::UserLost(error))
            }
            result => result.map_err(AttemptError::Failed),
        }
    }

    async fn operation<W: StoreOperation>(
        &self,
        user: &User,
        lease: &Arc<DatabaseLease>,
        call: &CallerContext,
        operation: &W,
        scope: &Scope,
    ) -> Result<W::Output, StoreError> {
        let timeout_ms = call.context.remaining().as_millis().max(1);
        let begin = format!("BEGIN; SET LOCAL statement_timeout = {timeout_ms}");
        let mut transaction = user.pool.begin_with(AssertSqlSafe(begin)).await?;
        // On the same connection: a just released one is not available yet, so another would be
        // opened.
        let check_result =
            user.checked.get_or_try_init(|| check(&mut *transaction, &user.pool)).await;
        if let Err(error) = check_result {
            self.report_schema_mismatch(&error, user, lease);
            return Err(error);
        }
        let mut transaction = Transaction::Postgres(transaction);
        let result = operation.run(&mut transaction, scope).await?;
        transaction.commit().await?;
        Ok(result)
    }

    /// The user of a lease, with lazy connections.
    async fn user(&self, lease: &Arc<DatabaseLease>, principal: &Principal) -> Arc<User> {
        let open = async {
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
                .max_connections(CONNECTIONS_PER_USER)
                .idle_timeout(IDLE_TIMEOUT)
                .max_lifetime(None)
                .acquire_timeout(CONNECT_TIMEOUT)
                .test_before_acquire(false)
                .connect_lazy_with(options);
            let (users, lease, pool_handle) = (self.users.clone(), Arc::clone(lease), pool.clone());
            tokio::spawn(async move {
                if pool_handle.close_event().do_until(lease.ended()).await.is_ok() {
                    users.invalidate(&lease.username).await;
                }
            });
            Arc::new(User { pool, checked: OnceCell::new() })
        };
        self.users.get_with_by_ref(&lease.username, open).await
    }

    /// Checks that the server answers. It needs no user, because callers bring theirs: it sends an
    /// SSLRequest, which the server answers with one byte and does not log.
    pub(crate) fn probe(&self) -> impl Fn() -> BoxFuture<'static, io::Result<()>> + Send + use<> {
        let (host, port) = (self.options.get_host().to_owned(), self.options.get_port());
        let socket = self.options.get_socket().map(|it| it.join(format!(".s.PGSQL.{port}")));
        move || {
            let (host, socket) = (host.clone(), socket.clone());
            Box::pin(async move {
                match socket {
                    #[cfg(unix)]
                    Some(socket) => ask(tokio::net::UnixStream::connect(socket).await?).await,
                    _ => ask(TcpStream::connect((host, port)).await?).await,
                }
            })
        }
    }

    /// Marks the service as not ready until a recheck finds the required schema version.
    fn report_schema_mismatch(&self, error: &StoreError, user: &User, lease: &Arc<DatabaseLease>) {
        if !matches!(error, StoreError::Schema { .. })
            || self.is_rechecking.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.schema.set(Err(error.to_string()));
        let (is_rechecking, schema) = (Arc::clone(&self.is_rechecking), Arc::clone(&self.schema));
        let (pool, lease) = (user.pool.clone(), Arc::clone(lease));
        tokio::spawn(async move {
            // Without a usable lease the schema cannot be checked; the next call checks it.
            while lease.is_usable()
                && matches!(check(&pool, &pool).await, Err(StoreError::Schema { .. }))
            {
                tokio::time::sleep(RECHECK_INTERVAL).await;
            }
            is_rechecking.store(false, Ordering::Release);
            schema.set(Ok(()));
        });
    }

    pub(super) async fn close(&self) {
        self.users.invalidate_all();
        self.users.run_pending_tasks().await;
        self.credentials.close().await;
    }
}

/// Sends an SSLRequest, and reads the answer.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.write_all(&SSL_REQUEST).await?;
    stream.read_u8().await.map(drop)
}

/// The error of an attempt.
enum AttemptError {
    /// The user was revoked, or the connection broke.
    UserLost(sqlx::Error),
    Failed(StoreError),
}

/// Checks that the schema has the required version.
async fn check(connection: impl PgExecutor<'_>, pool: &PgPool) -> Result<(), StoreError> {
    let needed = migrate::required_version();
    let query = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success");
    let found: Option<i64> = match query.fetch_one(connection).await {
        Ok(found) => found,
        Err(error) if is_missing(&error) && !is_user_lost(&error, pool).await => None,
        Err(error) => return Err(error.into()),
    };
    if found == Some(needed) { Ok(()) } else { Err(StoreError::Schema { found, needed }) }
}

/// `undefined_table`, `undefined_object` or `insufficient_privilege`: the errors of a user without
/// roles.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42P01" | "42704" | "42501"))
}

/// Whether an error means that the user was revoked or the connection broke.
async fn is_user_lost(error: &sqlx::Error, pool: &PgPool) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolClosed => true,
        sqlx::Error::Database(inner) => match inner.code().as_deref() {
            // `invalid_authorization_specification`, `connection_exception`, and administrative
            // shutdown below.
            Some(code) if code.starts_with("28") || code.starts_with("08") => true,
            Some("57P01" | "57P02") => true,
            // A dropped user retains the connection but loses the roles.
            _ if is_missing(error) => {
                sqlx::query("SELECT session_user::text").execute(pool).await.is_err()
            }
            _ => false,
        },
        _ => false,
    }
}
