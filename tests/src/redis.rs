use std::{
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use ::redis::{Client, Cmd, FromRedisValue, RedisResult};
use drawbridge_cli::backing;

mod cluster;
mod sentinel;

pub use self::{cluster::RedisCluster, sentinel::RedisSentinel};

/// Of servers that belong together.
const PASSWORD: &str = "of-all-of-them";
/// Within this time they have found one another.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis server of this test's own.
#[derive(Debug)]
pub struct Redis {
    server: backing::Redis,
    /// Where it is.
    pub url: String,
}

impl Redis {
    /// Starts a server on a free port and waits until it answers.
    pub async fn start() -> Self {
        Self::with("").await
    }

    async fn with(config: &str) -> Self {
        let started = backing::Redis::with(Path::new("redis-server"), config).await;
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

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.server.server.kill();
    }

    /// Starts it again where it was, and empty.
    pub async fn start_again(&mut self) {
        self.server.start_again().await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    }
}

/// One of several servers that belong together.
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

    /// Asks it one thing, in words.
    async fn ask<T: FromRedisValue>(&self, words: &str) -> RedisResult<T> {
        ask(&self.client, words).await
    }

    async fn told<T: FromRedisValue>(&self, words: &str) -> T {
        self.ask(words).await.unwrap_or_else(|error| panic!("{words}: {error}"))
    }
}

async fn ask<T: FromRedisValue>(client: &Client, words: &str) -> RedisResult<T> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = Cmd::new();
    for word in words.split(' ') {
        command.arg(word);
    }
    command.query_async(&mut connection).await
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn free_port() -> u16 {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.expect("a free port").port()
}
