use std::{
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use ::redis::{Client, Cmd, FromRedisValue, RedisResult};
use drawbridge_mesh::dependencies;

mod cluster;
mod sentinel;

pub use self::{cluster::RedisCluster, sentinel::RedisSentinel};

/// The password of all nodes of one deployment.
const PASSWORD: &str = "of-all-of-them";
/// The time limit for nodes to discover one another.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// A Redis server for one test.
#[derive(Debug)]
pub struct Redis {
    server: dependencies::Redis,
    /// Its URL.
    pub url: String,
}

impl Redis {
    /// Starts a server on a free port and waits until it responds.
    pub async fn start() -> Self {
        Self::with("").await
    }

    async fn with(config: &str) -> Self {
        let started =
            dependencies::Redis::start_with_config(Path::new("redis-server"), config).await;
        let server = started.unwrap_or_else(|error| {
            panic!("{error}: {error:?}; `make test` or `tests/setup.sh test` installs Redis")
        });
        Self { url: server.url.clone(), server }
    }

    /// The process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server.server.id()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.server.server.kill();
    }

    /// Restarts it on the same port, empty.
    pub async fn restart(&mut self) {
        self.server.restart().await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    }
}

/// One node of a cluster, or of a master and its replica.
#[derive(Debug)]
struct Node {
    redis: Redis,
    client: Client,
}

impl Node {
    async fn start(config: &str) -> Self {
        let redis =
            Redis::with(&format!("requirepass {PASSWORD}\nmasterauth {PASSWORD}\n{config}\n"))
                .await;
        let client = Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{}", redis.server.port));
        Self { redis, client: client.expect("a URL") }
    }

    fn port(&self) -> u16 {
        self.redis.server.port
    }

    /// Sends one command, given as text separated by spaces.
    async fn command<T: FromRedisValue>(&self, text: &str) -> RedisResult<T> {
        command(&self.client, text).await
    }

    async fn expect<T: FromRedisValue>(&self, text: &str) -> T {
        self.command(text).await.unwrap_or_else(|error| panic!("{text}: {error}"))
    }
}

async fn command<T: FromRedisValue>(client: &Client, text: &str) -> RedisResult<T> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut parsed = Cmd::new();
    for argument in text.split(' ') {
        parsed.arg(argument);
    }
    parsed.query_async(&mut connection).await
}

async fn until(what: &str, is_done: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !is_done().await {
        assert!(started.elapsed() < DISCOVERY_TIMEOUT, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn free_port() -> u16 {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.expect("a free port").port()
}
