//! The PostgreSQL store. Every caller has its own database user, which Vault creates for the
//! caller's lease.
//!
//! A user's connections are few, and are closed when the lease ends. The user's name contains a
//! hash of the principal, which the schema compares with the principal that the connection states
//! (migrations/postgres).

use std::{io, sync::Arc, time::Duration};

use drawbridge_sdk::{
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
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::OnceCell,
};

use super::{
    CallerContext, PostgresSettings, Scope, StoreError, StoreOperation, Transaction,
    errors::is_user_lost,
    migrate,
    schema::{Observer, Schema, check_version},
};

/// The maximum number of connections per user.
const CONNECTIONS_PER_USER: u32 = 2;
/// Idle connections and users are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long acquiring a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// "Do you speak TLS?": its length and its code (PostgreSQL, Message Formats).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A PostgreSQL store.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    options: PgConnectOptions,
    credentials: Credentials,
    /// The users by name.
    users: Cache<String, Arc<User>>,
    schema: Arc<Schema>,
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
        let observer = settings.has_own_login.then(|| Observer {
            options: options.clone(),
            credentials: settings.credentials.clone(),
        });
        let schema = Arc::new(Schema::new(&settings.readiness, observer));
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
        Self { options, credentials: settings.credentials, users, schema }
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
            user.checked.get_or_try_init(|| check_version(&mut *transaction, &user.pool)).await;
        if let Err(error) = check_result {
            self.schema.report(&error, &user.pool, lease);
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
        let options = self.options.clone();
        move || {
            let options = options.clone();
            Box::pin(async move { ask_server(&options).await })
        }
    }

    /// Checks the version of the schema as the service itself, if it has a login, until it is
    /// sufficient.
    pub(crate) fn check_schema(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.schema).check_at_start()
    }

    pub(super) async fn close(&self) {
        self.users.invalidate_all();
        self.users.run_pending_tasks().await;
        self.credentials.close().await;
    }
}

/// Checks that the server of `options` answers, without a user.
pub(super) async fn ask_server(options: &PgConnectOptions) -> io::Result<()> {
    let (host, port) = (options.get_host(), options.get_port());
    match options.get_socket().map(|folder| folder.join(format!(".s.PGSQL.{port}"))) {
        #[cfg(unix)]
        Some(socket) => ask(tokio::net::UnixStream::connect(socket).await?).await,
        _ => ask(TcpStream::connect((host, port)).await?).await,
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
