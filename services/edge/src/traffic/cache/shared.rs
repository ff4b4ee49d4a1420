//! What replicas share: entries and the tags' generations in Redis.

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
use drawbridge_sdk::{Redis, RedisAway, RedisBreaker};
use redis::{AsyncCommands as _, ErrorKind, FromRedisValue, Pipeline, RedisError};
use secrecy::SecretString;

use super::{key::Key, memory::Entry};
use crate::sealer::Sealer;

/// Each entry is a key of its own, in any slot.
const ENTRY: &str = "drawbridge:cache:entry:";
/// All generations are in one key, which is read at once.
const TAGS: &str = "drawbridge:cache:tags";
/// Longer than anything here waits.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Generations, for which only writes wait.
const TAGS_TIMEOUT: Duration = Duration::from_millis(500);
/// For how long Redis that was too slow is not asked for entries.
const PAUSE: Duration = Duration::from_millis(500);

/// Redis, over one connection. One that was lost is given up at once, even if it could be had again: what Redis may have
/// forgotten meanwhile is to be dealt with first.
pub(super) struct Shared {
    redis: RedisBreaker,
    within_ms: AtomicU64,
    /// Until when Redis is not asked for entries.
    paused: ArcSwapOption<Instant>,
    sealer: Sealer,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(super) fn new(
        url: &SecretString,
        sealer: Sealer,
        within: Duration,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            redis: RedisBreaker::new(url, RESPONSE_TIMEOUT)?,
            within_ms: AtomicU64::new(millis(within)),
            paused: ArcSwapOption::empty(),
            sealer,
        })
    }

    /// Redis may take so long from now on.
    pub(super) fn set(&self, within: Duration) {
        self.within_ms.store(millis(within), Ordering::Relaxed);
    }

    /// A connection that has answered.
    pub(super) async fn connect(&self) -> Option<Redis> {
        let probe = async |connection: &Redis| connection.clone().hlen::<_, u64>(TAGS).await;
        let told =
            |error| tracing::debug!(error = %drawbridge_sdk::error_chain(&error), "Redis is away");
        self.redis.connect(probe).await.map_err(told).ok()
    }

    pub(super) fn turn_on(&self, connection: Redis) {
        self.redis.turn_on(connection);
    }

    pub(super) fn turn_off(&self) {
        self.redis.turn_off();
    }

    /// The entry of this key. It lasts, by the clock of Redis, as long as it may; `lasts` is how long that was.
    pub(super) async fn get(&self, key: &Key, lasts: Duration) -> Option<Entry> {
        let mut command = redis::pipe();
        let name = name(key);
        command.get(&name).pttl(&name);
        let asked = Instant::now();
        let (kept, left): (Option<Vec<u8>>, i64) = self.run_quickly(&command).await?;
        let left = Duration::from_millis(u64::try_from(left).ok()?);
        let bytes = self.sealer.open(key.bytes(), kept?)?;
        let born = asked.checked_sub(lasts.checked_sub(left)?)?;
        Some(Entry { bytes, born, lasts })
    }

    pub(super) async fn put(&self, key: &Key, entry: &Entry) {
        let Some((left, bytes)) = entry.left().zip(self.sealer.close(key.bytes(), &entry.bytes))
        else {
            return;
        };
        let mut command = redis::pipe();
        command.pset_ex(name(key), bytes, millis(left).max(1)).ignore();
        let _: Option<()> = self.run_quickly(&command).await;
    }

    pub(super) async fn remove(&self, key: &Key) {
        let mut command = redis::pipe();
        command.del(name(key)).ignore();
        let _: Option<()> = self.run_quickly(&command).await;
    }

    /// The generations of all tags. None: nobody knows.
    pub(super) async fn tags(&self) -> Option<HashMap<String, String>> {
        let mut command = redis::pipe();
        command.hgetall(TAGS);
        let (tags,) = self.run(&command, TAGS_TIMEOUT).await?;
        Some(tags)
    }

    /// Begins these generations. False: nobody knows.
    pub(super) async fn set_tags(&self, generations: &[(&str, &str)]) -> bool {
        let mut command = redis::pipe();
        command.hset_multiple(TAGS, generations).ignore();
        self.run::<()>(&command, TAGS_TIMEOUT).await.is_some()
    }

    /// Begins a generation, where there is none.
    pub(super) async fn set_tag_once(&self, tag: &str, generation: &str) -> bool {
        let mut command = redis::pipe();
        command.hset_nx(TAGS, tag, generation).ignore();
        self.run::<()>(&command, TAGS_TIMEOUT).await.is_some()
    }

    /// Does what a caller waits for. Slowness costs one of them a moment, and then nobody for a while.
    async fn run_quickly<T: FromRedisValue>(&self, command: &Pipeline) -> Option<T> {
        if self.paused.load().as_ref().is_some_and(|until| Instant::now() < **until) {
            return None;
        }
        let within = Duration::from_millis(self.within_ms.load(Ordering::Relaxed));
        match self.ask(command, within).await? {
            Ok(answer) => Some(answer),
            Err(error) => {
                if matches!(error, RedisAway::Slow(_)) {
                    self.paused.store(Some(Arc::new(Instant::now() + PAUSE)));
                }
                None
            }
        }
    }

    async fn run<T: FromRedisValue>(&self, command: &Pipeline, within: Duration) -> Option<T> {
        self.ask(command, within).await?.ok()
    }

    /// Nothing while Redis is away.
    async fn ask<T: FromRedisValue>(
        &self,
        command: &Pipeline,
        within: Duration,
    ) -> Option<Result<T, RedisAway>> {
        let connection = self.redis.connection()?;
        let mut sending = Redis::clone(&connection);
        let error = match RedisBreaker::wait(within, command.query_async(&mut sending)).await {
            Ok(answer) => return Some(Ok(answer)),
            Err(error) => error,
        };
        tracing::debug!(error = %drawbridge_sdk::error_chain(&error), "Redis does not do what it is told");
        // That it is too slow, or has no room, says nothing of the connection.
        let is_lost =
            matches!(&error, RedisAway::Redis(error) if error.kind() != ErrorKind::Extension);
        if is_lost {
            self.redis.give_up(&connection);
        }
        Some(Err(error))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn name(key: &Key) -> String {
    format!("{ENTRY}{}", key.text())
}
