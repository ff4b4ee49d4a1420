//! Redis as an operator names it: one server, a master that sentinels watch over, or a cluster.

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

pub use self::breaker::{RedisAway, RedisBreaker};
use self::servers::Servers;

mod breaker;
mod servers;

/// How long it may take to find out where to write, and to connect there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connecting to one server may take: one that is dead keeps nobody from the others.
const SERVER_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection that all share who clone it. It connects when it is first used, and anew when it was lost or leads where
/// nobody may write any more: the command that found that out fails, and the next one asks where the master is now.
#[derive(Clone)]
pub struct Redis {
    servers: Arc<Servers>,
    answer_within: Duration,
    /// What drives the connections. Absent: the runtime of whoever connects.
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
    /// The servers of this URL, each command of which fails after `answer_within`. The forms, each also with `rediss` for
    /// TLS:
    ///
    /// - `redis://[user:password@]host[:port][/database]`, and `redis+unix://` with the path of a socket
    /// - `redis-sentinel://[user:password@]sentinel[:port],…/master[?sentinel_password=…]`
    /// - `redis-cluster://[user:password@]node[:port],…`
    ///
    /// # Errors
    /// When it is none of them.
    pub fn open(url: &SecretString, answer_within: Duration) -> RedisResult<Self> {
        Self::driven(url, answer_within, None)
    }

    /// As [`Self::open`], with connections that this runtime drives: it reads answers while the caller's is busy.
    fn driven(
        url: &SecretString,
        answer_within: Duration,
        driver: Option<Handle>,
    ) -> RedisResult<Self> {
        let servers = Arc::new(Servers::parse(url.expose_secret())?);
        let connecting =
            ArcSwap::from_pointee(connecting(&servers, answer_within, driver.as_ref()));
        Ok(Self { servers, answer_within, driver, connecting: Arc::new(connecting) })
    }

    /// Asks whether commands are answered: whether somebody is there, and takes the password.
    ///
    /// # Errors
    /// When they are not.
    pub async fn ping(&self) -> RedisResult<()> {
        ::redis::cmd("PING").query_async(&mut self.clone()).await
    }

    /// A connection of its own to the same servers.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { connecting: Arc::new(ArcSwap::from_pointee(self.connecting())), ..self.clone() }
    }

    fn connecting(&self) -> Connecting {
        connecting(&self.servers, self.answer_within, self.driver.as_ref())
    }

    /// Runs a command on the connection, and gives that up when the answer says so.
    async fn run<T>(
        &self,
        command: impl AsyncFnOnce(Connection) -> RedisResult<T>,
        is_refused: impl FnOnce(&T) -> bool,
    ) -> RedisResult<T> {
        let connecting = self.connecting.load_full();
        let (answer, lost) = match Connecting::clone(&connecting).await {
            Ok(connection) => {
                let answer = command(connection).await;
                let lost = answer.as_ref().map_or_else(is_lost, is_refused);
                (answer, lost)
            }
            Err(error) => (Err(error), true),
        };
        if lost {
            let anew = Arc::new(self.connecting());
            // Who is late to find out does not end the connection that came after.
            self.connecting.compare_and_swap(&connecting, anew);
        }
        answer
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

/// Whether another connection is needed: this one broke, says nothing, or leads to what is no master any more.
fn is_lost(error: &RedisError) -> bool {
    let refused = matches!(error.kind(), ErrorKind::Server(kind) if is_no_master(kind));
    refused || error.is_unrecoverable_error() || error.is_io_error()
}

fn is_refusal(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind().is_some_and(is_no_master))
}

/// A transaction is aborted, too, for a write that its server does not take.
fn is_no_master(kind: ServerErrorKind) -> bool {
    use ServerErrorKind::{ClusterDown, ExecAbort, MasterDown, Moved, ReadOnly};
    matches!(kind, ReadOnly | MasterDown | ClusterDown | Moved | ExecAbort)
}

fn connecting(
    servers: &Arc<Servers>,
    answer_within: Duration,
    driver: Option<&Handle>,
) -> Connecting {
    let (servers, driver) = (Arc::clone(servers), driver.cloned());
    let connecting = async move {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect(&servers, answer_within));
        connecting.await.unwrap_or_else(|_| Err(io::Error::from(TimedOut).into()))
    };
    // A task of its own: whoever does not wait any longer leaves nothing half done.
    let connected = async move {
        let connected = driver.unwrap_or_else(Handle::current).spawn(connecting).await;
        connected.unwrap_or_else(|error| Err(io::Error::from(error).into()))
    };
    connected.boxed().shared()
}

async fn connect(servers: &Servers, answer_within: Duration) -> RedisResult<Connection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SERVER_TIMEOUT))
        .set_response_timeout(Some(answer_within));
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
                .set_response_timeout(answer_within);
            Connection::Cluster(client.get_async_connection_with_config(config).await?)
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn what_is_said_to_rediss_is_tls_and_nothing_before_it() {
        const HANDSHAKE: u8 = 0x16;
        for (scheme, path) in [("", ""), ("-cluster", ""), ("-sentinel", "/main")] {
            for (tls, first) in [("redis", b'*'), ("rediss", HANDSHAKE)] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let url = format!("{tls}{scheme}://:secret@{address}{path}");
                let mut redis = Redis::open(&url.clone().into(), Duration::from_secs(30)).unwrap();
                let asking = tokio::spawn(async move {
                    ::redis::cmd("PING").query_async::<String>(&mut redis).await
                });
                let (mut stream, _) = listener.accept().await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), first, "{url}");
                drop((stream, listener));
                assert!(asking.await.unwrap().is_err(), "{url}");
            }
        }
    }
}
