//! Buckets in Redis, which all replicas share.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use drawbridge_runtime::{
    Redis, RedisConnection, RedisUnavailable, backoff::ReconnectDelays, trace,
};
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind};
use secrecy::SecretString;
use tracing::Instrument as _;

use self::batch::Batcher;
use super::{gcra::BucketStatus, limit::Charge};
use crate::metrics::LIMITS_REDIS_AVAILABLE;

mod batch;

const TAKE: &str = include_str!("take.lua");
/// The hash tag puts all buckets into one slot: in a cluster, a script can access one slot only,
/// and it must charge all buckets or none.
const PREFIX: &str = "{drawbridge:limits}:";
/// Longer than any request waits, because requests have their own timeout.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits in all, as a multiple of the timeout of Redis: earlier batches may run
/// first.
const BATCHES_WAITED_MAX: u32 = 3;

pub(super) struct SharedBuckets {
    counter: Arc<Counter>,
    /// Set once `start` was called.
    batcher: OnceLock<Batcher>,
}

/// Runs the script in Redis.
struct Counter {
    redis: RedisConnection,
    script: Script,
}

impl fmt::Debug for SharedBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedBuckets")
    }
}

impl SharedBuckets {
    pub(super) fn new(url: &SecretString) -> Result<Self, RedisError> {
        let redis = RedisConnection::new(url, RESPONSE_TIMEOUT)?;
        let counter = Arc::new(Counter { redis, script: Script::new(TAKE) });
        Ok(Self { counter, batcher: OnceLock::new() })
    }

    /// Connects, once. Does not wait while Redis is unavailable.
    pub(super) async fn start(&self) {
        let mut is_first = false;
        self.batcher.get_or_init(|| {
            is_first = true;
            Batcher::start(Arc::clone(&self.counter))
        });
        if !is_first {
            return;
        }
        match self.counter.connect().await {
            Ok(connection) => self.counter.set_connection(connection),
            Err(error) => self.counter.reconnect(&error),
        }
    }

    /// Charges every bucket or none. Returns `None` without a reply in time; whether Redis has
    /// counted the request is then unknown.
    pub(super) async fn take(
        &self,
        charges: &[Charge],
        timeout: Duration,
    ) -> Option<Vec<BucketStatus>> {
        let (connection, batcher) = (self.counter.redis.get()?, self.batcher.get()?);
        // Only the batcher detects that Redis is unavailable. A request may time out because it
        // waits for earlier batches, which does not mean that the connection failed.
        let taking = batcher.take(&connection, charges, timeout);
        let span = trace::redis_span("EVALSHA");
        let waiting = RedisConnection::wait_for_reply(BATCHES_WAITED_MAX * timeout, taking);
        let reply = waiting.instrument(span.clone()).await;
        trace::end_with(&span, reply.as_ref().err().map(RedisUnavailable::word));
        reply.ok()
    }
}

impl Counter {
    /// Runs the script by its hash, which a server knows after the first `EVAL`. `SCRIPT LOAD`
    /// would need a reply of every master of a cluster.
    async fn invoke(
        &self,
        connection: &Redis,
        keys: &[String],
        numbers: &[u64],
    ) -> Result<Vec<u64>, RedisError> {
        let run = async |command: &str, script: &str| {
            let mut call = Cmd::new();
            call.arg(command).arg(script).arg(keys.len()).arg(keys).arg(numbers);
            call.query_async(&mut connection.clone()).await
        };
        match run("EVALSHA", self.script.get_hash()).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                run("EVAL", TAKE).await
            }
            result => result,
        }
    }

    /// Opens a connection on which a run of the script could write.
    async fn connect(&self) -> Result<Redis, RedisUnavailable> {
        let probe = [format!("{PREFIX}:probe")];
        self.redis
            .connect(async |connection| self.invoke(connection, &probe, &[1, 1, 1, 1]).await)
            .await
    }

    /// Gives up a connection without replies.
    fn give_up(self: &Arc<Self>, connection: &Arc<Redis>, error: &RedisUnavailable) {
        if self.redis.clear_if_current(connection) {
            self.reconnect(error);
        }
    }

    /// Whether this connection is in use.
    fn is_current(&self, connection: &Arc<Redis>) -> bool {
        self.redis.get().is_some_and(|current| Arc::ptr_eq(&current, connection))
    }

    fn set_connection(&self, connection: Redis) {
        self.redis.set(connection);
        LIMITS_REDIS_AVAILABLE.get().set(1);
        tracing::info!("rate limits are counted in Redis");
    }

    /// Logs that Redis is unavailable, and reconnects in the background.
    fn reconnect(self: &Arc<Self>, error: &RedisUnavailable) {
        LIMITS_REDIS_AVAILABLE.get().set(0);
        tracing::warn!(
            error = %drawbridge_runtime::error_chain(error),
            "Redis is unavailable; each rate limit applies its `without_redis`"
        );
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut delays = ReconnectDelays::default();
            loop {
                delays.wait().await;
                // The edge has stopped.
                let Some(this) = this.upgrade() else { return };
                match this.connect().await {
                    Ok(connection) => return this.set_connection(connection),
                    Err(error) => {
                        let error = drawbridge_runtime::error_chain(&error);
                        tracing::debug!(%error, "Redis is still unavailable");
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Stdio, time::Instant};

    use drawbridge_proto::auth::v1::Principal;
    use futures::future::join_all;
    use rand::RngExt as _;
    use tempfile::TempDir;
    use tokio::process::{Child, Command};

    use super::*;
    use crate::traffic::limits::{
        config::tests::rules,
        limit::{CalledTool, Subject},
        local::LocalBuckets,
    };

    /// No unit is added while the test runs.
    const LIMITS: &str = r#"
        [[limit]]
        name = "each"
        by = "principal"
        rate = 40
        per_seconds = 8640000
        cost = { dear = 7 }
        [[limit]]
        name = "tool"
        by = "tool"
        rate = 90
        per_seconds = 8640000
        cost = { dear = 3 }
        [[limit]]
        name = "all"
        by = "global"
        rate = 150
        per_seconds = 8640000
    "#;

    /// Buckets in a Redis of this test, which stops when the returned child is dropped.
    async fn start() -> (Arc<SharedBuckets>, TempDir, Child) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server; `make test` or `tests/setup.sh test` installs it");
        let shared = Arc::new(
            SharedBuckets::new(&format!("redis+unix://{}", socket.display()).into()).unwrap(),
        );
        shared.start().await;
        available(&shared).await;
        (shared, folder, server)
    }

    async fn available(shared: &SharedBuckets) {
        while shared.counter.redis.get().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_slow_redis_is_unavailable_until_it_replies_again() {
        let (shared, _folder, _server) = start().await;
        let subject = Subject::Caller { principal: &Principal::default(), tool: None };
        let charges = rules(LIMITS).charges(&subject);
        assert!(shared.take(&charges, Duration::from_secs(30)).await.is_some());
        let mut connection = Redis::clone(&shared.counter.redis.get().unwrap());
        let _: () = redis::cmd("CLIENT")
            .arg("PAUSE")
            .arg(2000)
            .arg("ALL")
            .query_async(&mut connection)
            .await
            .unwrap();
        let started = Instant::now();
        assert!(shared.take(&charges, Duration::from_millis(50)).await.is_none());
        assert!(started.elapsed() < Duration::from_secs(2), "the request waited for Redis");
        assert!(shared.counter.redis.get().is_none(), "the connection is still in use");
        available(&shared).await;
        assert!(shared.take(&charges, Duration::from_secs(30)).await.is_some());
    }

    /// Regression: a runtime that was busy for longer than the timeout polled its timer before the
    /// reply, which had arrived in time.
    #[tokio::test]
    async fn a_busy_process_does_not_make_redis_unavailable() {
        let (shared, _folder, _server) = start().await;
        let subject = Subject::Caller { principal: &Principal::default(), tool: None };
        let charges = rules(LIMITS).charges(&subject);
        let timeout = Duration::from_millis(50);
        let busy = tokio::spawn(async move {
            loop {
                std::thread::sleep(2 * timeout);
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..10 {
            assert!(shared.take(&charges, timeout).await.is_some());
        }
        assert!(shared.counter.redis.get().is_some());
        busy.abort();
    }

    #[tokio::test]
    async fn concurrent_requests_are_batched_and_charged_one_by_one() {
        let (shared, _folder, _server) = start().await;
        let rules = rules(LIMITS);
        let persons: Vec<_> = (0..5)
            .map(|number| Principal { subject: format!("person-{number}"), ..Default::default() })
            .collect();
        let tool = Some(CalledTool { name: "dear", class: "" });
        let charges: Vec<_> = (0..100)
            .map(|number| rules.charges(&Subject::Caller { principal: &persons[number % 5], tool }))
            .collect();
        let taking = charges.iter().map(|charges| shared.take(charges, Duration::from_secs(30)));
        let results = join_all(taking).await;
        let admitted = results
            .iter()
            .flatten()
            .filter(|buckets| buckets.iter().all(|bucket| bucket.wait_micros == 0));
        // A call costs 7 of each person's 40 units, and 3 of the tool's 90.
        assert_eq!((results.iter().flatten().count(), admitted.count()), (100, 25));
        let mut connection = Redis::clone(&shared.counter.redis.get().unwrap());
        let figures: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let scripts =
            figures.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
        let scripts: usize = scripts.split(',').next().unwrap().parse().unwrap();
        assert!(scripts <= 10, "{scripts} scripts for 100 requests");
    }

    #[tokio::test]
    async fn redis_and_local_buckets_count_alike() {
        let (shared, _folder, _server) = start().await;
        let (local, rules) = (LocalBuckets::new(), rules(LIMITS));
        let (mut admitted, mut rejected) = (0, 0);
        for _ in 0..600 {
            let subject = format!("person-{}", rand::rng().random_range(0..6));
            let principal = Principal { subject, ..Default::default() };
            let tool = [None, Some("dear"), Some("cheap")][rand::rng().random_range(0..3)];
            let tool = tool.map(|name| CalledTool { name, class: "" });
            let charges = rules.charges(&Subject::Caller { principal: &principal, tool });
            let local = local.take_at(&charges, 0, 100);
            let shared = shared.take(&charges, Duration::from_secs(30)).await.expect("a reply");
            for (local, shared) in local.iter().zip(&shared) {
                assert_eq!(local.wait_micros == 0, shared.wait_micros == 0, "{charges:?}");
                assert_eq!(local.remaining(0), shared.remaining(0), "{charges:?}");
            }
            let is_admitted = local.iter().all(|bucket| bucket.wait_micros == 0);
            *if is_admitted { &mut admitted } else { &mut rejected } += 1;
        }
        assert!(admitted > 50 && rejected > 50, "{admitted} admitted, {rejected} rejected");
    }

    /// A connection attempt that outlived its edge was repeated forever.
    #[tokio::test]
    async fn reconnecting_ends_with_the_buckets() {
        let shared = SharedBuckets::new(&"redis://127.0.0.1:1".into()).unwrap();
        shared.start().await;
        let counter = Arc::downgrade(&shared.counter);
        drop(shared);
        let ended = async {
            while counter.upgrade().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    }
}
