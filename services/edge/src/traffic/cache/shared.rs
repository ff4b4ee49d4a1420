//! Cache entries and tag generations in Redis, shared by all replicas.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use drawbridge_runtime::{Redis, RedisConnection, RedisUnavailable, error_chain, trace};
use redis::{AsyncCommands as _, ErrorKind, FromRedisValue, Pipeline, RedisError};
use secrecy::SecretString;
use tracing::Instrument as _;

use super::{key::CacheKey, memory::CacheEntry};
use crate::sealer::Sealer;

/// Prefix of entry keys, which may be in any slot.
const ENTRY_PREFIX: &str = "drawbridge:cache:entry:";
/// The hash of all generations, read as a whole.
const TAGS_KEY: &str = "drawbridge:cache:tags";
/// Longer than every other timeout here.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// For generations, for which only writes wait.
const TAGS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long lookups skip Redis after it was too slow.
const PAUSE: Duration = Duration::from_millis(500);

/// Redis, over one connection. A lost connection is not reused: Redis may have lost data meanwhile,
/// which the tag watcher must handle first.
pub(super) struct RedisStore {
    redis: RedisConnection,
    timeout_ms: AtomicU64,
    /// Until when lookups skip Redis.
    paused_until: ArcSwapOption<Instant>,
    sealer: Sealer,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisStore")
    }
}

impl RedisStore {
    pub(super) fn new(
        url: &SecretString,
        sealer: Sealer,
        timeout: Duration,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            redis: RedisConnection::new(url, RESPONSE_TIMEOUT)?,
            timeout_ms: AtomicU64::new(millis(timeout)),
            paused_until: ArcSwapOption::empty(),
            sealer,
        })
    }

    /// Sets how long lookups wait for Redis.
    pub(super) fn set(&self, timeout: Duration) {
        self.timeout_ms.store(millis(timeout), Ordering::Relaxed);
    }

    /// A connection that has answered a probe.
    pub(super) async fn connect(&self) -> Option<Redis> {
        let probe = async |connection: &Redis| connection.clone().hlen::<_, u64>(TAGS_KEY).await;
        let log = |error| {
            tracing::debug!(error = %error_chain(&error), "Redis is unavailable");
        };
        self.redis.connect(probe).await.map_err(log).ok()
    }

    pub(super) fn turn_on(&self, connection: Redis) {
        self.redis.set(connection);
    }

    pub(super) fn turn_off(&self) {
        self.redis.clear();
    }

    /// The entry of this key. Redis expires it by its own clock; its age is `lifetime` less the
    /// remaining time.
    pub(super) async fn get(&self, key: &CacheKey, lifetime: Duration) -> Option<CacheEntry> {
        let mut command = redis::pipe();
        let name = entry_name(key);
        command.get(&name).pttl(&name);
        let read_at = Instant::now();
        let (sealed, remaining): (Option<Vec<u8>>, i64) =
            self.run_for_call("GET", &command).await?;
        let remaining = Duration::from_millis(u64::try_from(remaining).ok()?);
        let bytes = self.sealer.open(key.bytes(), sealed?)?;
        let requested_at = read_at.checked_sub(lifetime.checked_sub(remaining)?)?;
        Some(CacheEntry { bytes, requested_at, lifetime })
    }

    pub(super) async fn put(&self, key: &CacheKey, entry: &CacheEntry) {
        let Some((remaining, bytes)) =
            entry.remaining().zip(self.sealer.seal(key.bytes(), &entry.bytes))
        else {
            return;
        };
        let mut command = redis::pipe();
        command.pset_ex(entry_name(key), bytes, millis(remaining).max(1)).ignore();
        let _: Option<()> = self.run_for_call("PSETEX", &command).await;
    }

    pub(super) async fn remove(&self, key: &CacheKey) {
        let mut command = redis::pipe();
        command.del(entry_name(key)).ignore();
        let _: Option<()> = self.run_for_call("DEL", &command).await;
    }

    /// The generations of all tags. `None`: Redis gave no reply.
    pub(super) async fn tags(&self) -> Option<HashMap<String, String>> {
        let mut command = redis::pipe();
        command.hgetall(TAGS_KEY);
        let (tags,) = self.run(&command, TAGS_TIMEOUT).await?;
        Some(tags)
    }

    /// Stores these generations. Returns whether Redis confirmed it.
    pub(super) async fn set_tags(&self, generations: &[(&str, &str)]) -> bool {
        let mut command = redis::pipe();
        command.hset_multiple(TAGS_KEY, generations).ignore();
        self.run::<()>(&command, TAGS_TIMEOUT).await.is_some()
    }

    /// Stores a generation, unless the tag has one. Returns whether Redis confirmed it.
    pub(super) async fn set_tag_once(&self, tag: &str, generation: &str) -> bool {
        let mut command = redis::pipe();
        command.hset_nx(TAGS_KEY, tag, generation).ignore();
        self.run::<()>(&command, TAGS_TIMEOUT).await.is_some()
    }

    /// Runs a command that a call waits for. After a timeout, calls skip Redis for a while.
    async fn run_for_call<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Pipeline,
    ) -> Option<T> {
        if self.paused_until.load().as_ref().is_some_and(|until| Instant::now() < **until) {
            return None;
        }
        let timeout = Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed));
        let span = trace::redis_span(operation);
        let reply = self.query(command, timeout).instrument(span.clone()).await?;
        trace::end_with(&span, reply.as_ref().err().map(RedisUnavailable::word));
        match reply {
            Ok(reply) => Some(reply),
            Err(error) => {
                if matches!(error, RedisUnavailable::Timeout(_)) {
                    self.paused_until.store(Some(Arc::new(Instant::now() + PAUSE)));
                }
                None
            }
        }
    }

    async fn run<T: FromRedisValue>(&self, command: &Pipeline, timeout: Duration) -> Option<T> {
        self.query(command, timeout).await?.ok()
    }

    /// Runs a command. `None` while Redis is unavailable.
    async fn query<T: FromRedisValue>(
        &self,
        command: &Pipeline,
        timeout: Duration,
    ) -> Option<Result<T, RedisUnavailable>> {
        let connection = self.redis.get()?;
        let mut connection_clone = Redis::clone(&connection);
        let error = match RedisConnection::wait_for_reply(
            timeout,
            command.query_async(&mut connection_clone),
        )
        .await
        {
            Ok(reply) => return Some(Ok(reply)),
            Err(error) => error,
        };
        tracing::debug!(error = %error_chain(&error), "Redis command failed");
        // A timeout, or a full Redis, does not mean that the connection is lost.
        let is_lost = match &error {
            RedisUnavailable::Redis(error) => error.kind() != ErrorKind::Extension,
            _ => false,
        };
        if is_lost {
            self.redis.clear_if_current(&connection);
        }
        Some(Err(error))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn entry_name(key: &CacheKey) -> String {
    format!("{ENTRY_PREFIX}{}", key.text())
}
