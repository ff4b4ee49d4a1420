//! Buckets in Redis, which all replicas share.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use drawbridge_sdk::{Redis, RedisAway, RedisBreaker};
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind};
use secrecy::SecretString;

use self::batch::Asking;
use super::{gcra::Answer, limit::Ask};

mod batch;

const TAKE: &str = include_str!("take.lua");
/// Of one slot, so that one script takes from all buckets or from none in a cluster too: it can reach no others.
const PREFIX: &str = "{drawbridge:limits}:";
/// Longer than a request may wait: that has a bound of its own.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many times as long as Redis may take a request waits in all: others may be counted before it.
const TURNS: u32 = 3;
/// Before Redis that gave no answer is tried again.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Shared {
    counter: Arc<Counter>,
    /// Once it has begun.
    asking: OnceLock<Asking>,
}

/// What asks Redis.
struct Counter {
    redis: RedisBreaker,
    script: Script,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(super) fn new(url: &SecretString) -> Result<Self, RedisError> {
        let redis = RedisBreaker::new(url, RESPONSE_TIMEOUT)?;
        let counter = Arc::new(Counter { redis, script: Script::new(TAKE) });
        Ok(Self { counter, asking: OnceLock::new() })
    }

    /// Connects, once. Redis that is away is no reason to wait for it.
    pub(super) async fn begin(&self) {
        let mut begins = false;
        self.asking.get_or_init(|| {
            begins = true;
            Asking::start(Arc::clone(&self.counter))
        });
        if !begins {
            return;
        }
        match self.counter.connect().await {
            Ok(connection) => self.counter.turn_on(connection),
            Err(error) => self.counter.try_again(&error),
        }
    }

    /// Takes from every bucket, or from none. Without an answer in time it is none that is known.
    pub(super) async fn take(&self, asks: &[Ask], within: Duration) -> Option<Vec<Answer>> {
        let (connection, asking) = (self.counter.redis.connection()?, self.asking.get()?);
        // Whether Redis is away is found out where it is asked. A request that has to wait for its turn there is Redis's
        // to answer for as well, but says nothing of the connection.
        let answers =
            RedisBreaker::wait(TURNS * within, asking.take(&connection, asks, within)).await;
        answers.ok()
    }
}

impl Counter {
    /// Runs the script, which a server knows by its hash once it has seen it. Not by `SCRIPT LOAD`: of a cluster all
    /// masters would have to answer.
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
            said => said,
        }
    }

    /// A connection on which the script has run and could write.
    async fn connect(&self) -> Result<Redis, RedisAway> {
        let probe = [format!("{PREFIX}:probe")];
        self.redis
            .connect(async |connection| self.invoke(connection, &probe, &[1, 1, 1, 1]).await)
            .await
    }

    /// Redis gave no answer over this connection.
    fn give_up(self: &Arc<Self>, connection: &Arc<Redis>, error: &RedisAway) {
        if self.redis.give_up(connection) {
            self.try_again(error);
        }
    }

    /// Whether the connection has not been given up.
    fn is_current(&self, connection: &Arc<Redis>) -> bool {
        self.redis.connection().is_some_and(|current| Arc::ptr_eq(&current, connection))
    }

    fn turn_on(&self, connection: Redis) {
        self.redis.turn_on(connection);
        metrics::gauge!("edge_limits_redis_available").set(1);
        tracing::info!("limits are counted in Redis");
    }

    /// Says that Redis is away, and tries again from now on, beside the requests.
    fn try_again(self: &Arc<Self>, error: &RedisAway) {
        metrics::gauge!("edge_limits_redis_available").set(0);
        tracing::warn!(
            error = %drawbridge_sdk::error_chain(error),
            "Redis is away: each limit does what the config says"
        );
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PAUSE).await;
                match this.connect().await {
                    Ok(connection) => return this.turn_on(connection),
                    Err(error) => {
                        tracing::debug!(error = %drawbridge_sdk::error_chain(&error), "Redis is still away");
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
        limit::{CalledTool, Counted},
        local::Local,
    };

    /// Nothing worth a unit comes back while the test runs.
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

    /// Buckets in a Redis of this test's own, which ends with what is given back beside them.
    async fn start() -> (Arc<Shared>, TempDir, Child) {
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
        let shared =
            Arc::new(Shared::new(&format!("redis+unix://{}", socket.display()).into()).unwrap());
        shared.begin().await;
        available(&shared).await;
        (shared, folder, server)
    }

    async fn available(shared: &Shared) {
        while shared.counter.redis.connection().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn redis_that_is_too_slow_is_away_until_it_answers_again() {
        let (shared, _folder, _server) = start().await;
        let asks =
            rules(LIMITS).asks(&Counted::Caller { principal: &Principal::default(), tool: None });
        assert!(shared.take(&asks, Duration::from_secs(30)).await.is_some());
        let mut connection = Redis::clone(&shared.counter.redis.connection().unwrap());
        let _: () = redis::cmd("CLIENT")
            .arg("PAUSE")
            .arg(2000)
            .arg("ALL")
            .query_async(&mut connection)
            .await
            .unwrap();
        let asked = Instant::now();
        assert!(shared.take(&asks, Duration::from_millis(50)).await.is_none());
        assert!(asked.elapsed() < Duration::from_secs(2), "it has waited for Redis");
        assert!(shared.counter.redis.connection().is_none(), "the next request does not ask");
        available(&shared).await;
        assert!(shared.take(&asks, Duration::from_secs(30)).await.is_some());
    }

    /// The fault: a runtime that was busy for longer than Redis may take found its timer before the answer, which had
    /// long been there.
    #[tokio::test]
    async fn redis_is_not_away_because_this_process_is_busy() {
        let (shared, _folder, _server) = start().await;
        let asks =
            rules(LIMITS).asks(&Counted::Caller { principal: &Principal::default(), tool: None });
        let within = Duration::from_millis(50);
        let busy = tokio::spawn(async move {
            loop {
                std::thread::sleep(2 * within);
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..10 {
            assert!(shared.take(&asks, within).await.is_some());
        }
        assert!(shared.counter.redis.connection().is_some());
        busy.abort();
    }

    #[tokio::test]
    async fn who_asks_at_once_is_counted_together_and_each_as_if_alone() {
        let (shared, _folder, _server) = start().await;
        let rules = rules(LIMITS);
        let persons: Vec<_> = (0..5)
            .map(|number| Principal { subject: format!("person-{number}"), ..Default::default() })
            .collect();
        let tool = Some(CalledTool { name: "dear", class: "" });
        let asks: Vec<_> = (0..100)
            .map(|number| rules.asks(&Counted::Caller { principal: &persons[number % 5], tool }))
            .collect();
        let answers =
            join_all(asks.iter().map(|asks| shared.take(asks, Duration::from_secs(30)))).await;
        let passed = answers
            .iter()
            .flatten()
            .filter(|answers| answers.iter().all(|one| one.wait_micros == 0));
        // Of each person's 40 units a call takes 7, and of the tool's 90 it takes 3.
        assert_eq!((answers.iter().flatten().count(), passed.count()), (100, 25));
        let mut connection = Redis::clone(&shared.counter.redis.connection().unwrap());
        let figures: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let scripts =
            figures.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
        let scripts: usize = scripts.split(',').next().unwrap().parse().unwrap();
        assert!(scripts <= 10, "{scripts} scripts for 100 requests");
    }

    #[tokio::test]
    async fn redis_counts_as_this_process_does() {
        let (shared, _folder, _server) = start().await;
        let (local, rules) = (Local::new(), rules(LIMITS));
        let (mut passed, mut refused) = (0, 0);
        for _ in 0..600 {
            let subject = format!("person-{}", rand::rng().random_range(0..6));
            let principal = Principal { subject, ..Default::default() };
            let tool = [None, Some("dear"), Some("cheap")][rand::rng().random_range(0..3)];
            let tool = tool.map(|name| CalledTool { name, class: "" });
            let asks = rules.asks(&Counted::Caller { principal: &principal, tool });
            let here = local.take_at(&asks, 0, 100);
            let there = shared.take(&asks, Duration::from_secs(30)).await.expect("an answer");
            for (here, there) in here.iter().zip(&there) {
                assert_eq!(here.wait_micros == 0, there.wait_micros == 0, "{asks:?}");
                assert_eq!(here.remaining(0), there.remaining(0), "{asks:?}");
            }
            let passes = here.iter().all(|answer| answer.wait_micros == 0);
            *if passes { &mut passed } else { &mut refused } += 1;
        }
        assert!(passed > 50 && refused > 50, "{passed} passed, {refused} refused");
    }
}
