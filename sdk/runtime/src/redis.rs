//! Redis: one server, a master with sentinels, or a cluster.

use std::{
    fmt,
    io::{self, ErrorKind::TimedOut},
    sync::Arc,
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterConfig,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClient, SentinelServerType},
};
use arc_swap::ArcSwap;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Handle;

pub use self::connection::{RedisConnection, RedisUnavailable};
use self::servers::Servers;

mod connection;
mod servers;

/// How long finding the writable server and connecting to it may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connecting to one server may take, so that a dead one does not block the others.
const SERVER_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection that its clones share. It connects on first use, and again when it was lost or
/// leads to a server that is no longer writable: the command that finds this out fails, and the
/// next one looks up the current master.
#[derive(Clone)]
pub struct Redis {
    servers: Arc<Servers>,
    response_timeout: Duration,
    /// The runtime that drives the connections. Absent: the caller's runtime.
    driver: Option<Handle>,
    connecting: Arc<ArcSwap<Connecting>>,
}

type Connecting = Shared<BoxFuture<'static, RedisResult<Connection>>>;

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

impl Redis {
    /// The servers of this URL, each command of which fails after `response_timeout`. The forms,
    /// each also with `rediss` for TLS:
    ///
    /// - `redis://[user:password@]host[:port][/database]`, and `redis+unix://` with the path of a
    ///   socket
    /// - `redis-sentinel://[user:password@]sentinel[:port],…/master[?sentinel_password=…]`
    /// - `redis-cluster://[user:password@]node[:port],…`
    ///
    /// # Errors
    /// When the URL is invalid.
    pub fn open(url: &SecretString, response_timeout: Duration) -> RedisResult<Self> {
        Self::open_on(url, response_timeout, None)
    }

    /// As [`Self::open`], with connections on this runtime, which reads responses while the
    /// caller's runtime is busy.
    fn open_on(
        url: &SecretString,
        response_timeout: Duration,
        driver: Option<Handle>,
    ) -> RedisResult<Self> {
        let servers = Arc::new(Servers::parse(url.expose_secret())?);
        let connecting =
            ArcSwap::from_pointee(connecting(&servers, response_timeout, driver.as_ref()));
        Ok(Self { servers, response_timeout, driver, connecting: Arc::new(connecting) })
    }

    /// Checks that the server answers and accepts the password.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> RedisResult<()> {
        ::redis::cmd("PING").query_async(&mut self.clone()).await
    }

    /// A separate connection to the same servers.
    #[must_use]
    pub fn new_connection(&self) -> Self {
        Self { connecting: Arc::new(ArcSwap::from_pointee(self.connecting())), ..self.clone() }
    }

    fn connecting(&self) -> Connecting {
        connecting(&self.servers, self.response_timeout, self.driver.as_ref())
    }

    /// Runs a command on the connection, and replaces the connection when the response requires it.
    async fn run<T>(
        &self,
        command: impl AsyncFnOnce(Connection) -> RedisResult<T>,
        is_refused: impl FnOnce(&T) -> bool,
    ) -> RedisResult<T> {
        let connecting = self.connecting.load_full();
        let (result, lost) = match Connecting::clone(&connecting).await {
            Ok(connection) => {
                let result = command(connection).await;
                let lost = result.as_ref().map_or_else(is_lost, is_refused);
                (result, lost)
            }
            Err(error) => (Err(error), true),
        };
        if lost {
            let replacement = Arc::new(self.connecting());
            // A late error must not replace a newer connection.
            self.connecting.compare_and_swap(&connecting, replacement);
        }
        result
    }
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let run = async move |connection| match connection {
            Connection::One(mut one) => one.req_packed_command(command).await,
            Connection::Cluster(mut cluster) => cluster.req_packed_command(command).await,
        };
        Box::pin(self.run(run, is_refusal))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let run = async move |connection| match connection {
            Connection::One(mut one) => one.req_packed_commands(pipeline, offset, count).await,
            Connection::Cluster(mut cluster) => {
                cluster.req_packed_commands(pipeline, offset, count).await
            }
        };
        Box::pin(self.run(run, |values: &Vec<Value>| values.iter().any(is_refusal)))
    }

    fn get_db(&self) -> i64 {
        match &*self.servers {
            Servers::One(client) => client.get_connection_info().redis_settings().db(),
            Servers::Sentinels { .. } | Servers::Cluster(_) => 0,
        }
    }
}

/// Whether another connection is needed: this one broke, timed out, or leads to a server that is no
/// longer the master.
fn is_lost(error: &RedisError) -> bool {
    let refused = matches!(error.kind(), ErrorKind::Server(kind) if is_not_writable(kind));
    refused || error.is_unrecoverable_error() || error.is_io_error()
}

fn is_refusal(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind().is_some_and(is_not_writable))
}

/// A transaction is also aborted by a write that its server rejects.
fn is_not_writable(kind: ServerErrorKind) -> bool {
    use ServerErrorKind::{ClusterDown, ExecAbort, MasterDown, Moved, ReadOnly};
    matches!(kind, ReadOnly | MasterDown | ClusterDown | Moved | ExecAbort)
}

fn connecting(
    servers: &Arc<Servers>,
    response_timeout: Duration,
    driver: Option<&Handle>,
) -> Connecting {
    let (servers, driver) = (Arc::clone(servers), driver.cloned());
    let connecting = async move {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect(&servers, response_timeout));
        connecting.await.unwrap_or_else(|_| Err(io::Error::from(TimedOut).into()))
    };
    // A separate task, so that a cancelled caller does not abort the connection attempt.
    let connected = async move {
        let connected = driver.unwrap_or_else(Handle::current).spawn(connecting).await;
        connected.unwrap_or_else(|error| Err(io::Error::from(error).into()))
    };
    connected.boxed().shared()
}

async fn connect(servers: &Servers, response_timeout: Duration) -> RedisResult<Connection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SERVER_TIMEOUT))
        .set_response_timeout(Some(response_timeout));
    Ok(match servers {
        Servers::One(client) => {
            Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?)
        }
        Servers::Sentinels { sentinels, master, settings } => {
            let (sentinels, settings) = (sentinels.clone(), Some(settings.clone()));
            let mut client =
                SentinelClient::build(sentinels, master, settings, SentinelServerType::Master)?;
            Connection::One(client.get_async_connection_with_config(&config).await?)
        }
        Servers::Cluster(client) => {
            let config = ClusterConfig::new()
                .set_connection_timeout(SERVER_TIMEOUT)
                .set_response_timeout(response_timeout);
            Connection::Cluster(client.get_async_connection_with_config(config).await?)
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_rediss_connection_starts_with_a_tls_handshake() {
        const HANDSHAKE: u8 = 0x16;
        for (scheme, path) in [("", ""), ("-cluster", ""), ("-sentinel", "/main")] {
            for (tls, first) in [("redis", b'*'), ("rediss", HANDSHAKE)] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let url = format!("{tls}{scheme}://:secret@{address}{path}");
                let mut redis = Redis::open(&url.clone().into(), Duration::from_secs(30)).unwrap();
                let ping = tokio::spawn(async move {
                    ::redis::cmd("PING").query_async::<String>(&mut redis).await
                });
                let (mut stream, _) = listener.accept().await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), first, "{url}");
                drop((stream, listener));
                assert!(ping.await.unwrap().is_err(), "{url}");
            }
        }
    }
}
