//! Redis that may be away, and then makes nobody wait.

use std::{pin::pin, sync::Arc, time::Duration};

use ::redis::{RedisError, RedisResult};
use arc_swap::ArcSwapOption;
use secrecy::SecretString;
use tokio::{
    runtime::{Builder, Runtime},
    time::{error::Elapsed, timeout},
};

use super::Redis;

/// How long connecting may take, and trying it out.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Into how many parts a wait is divided. However late this process finds the end of one, it counts as one.
const PARTS: u32 = 10;

/// Redis gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RedisAway {
    /// Not in time.
    #[error("Redis is too slow")]
    Slow(#[from] Elapsed),
    /// An error instead.
    #[error("Redis gives no answer")]
    Redis(#[from] RedisError),
}

/// A circuit breaker for Redis: a connection that is there for whoever asks, until one of them gives it up. When to do so, and
/// when to try another, is for those who use it to say.
///
/// Its connections have a thread of their own, which reads what Redis answers however busy this process is.
#[derive(Debug)]
pub struct RedisBreaker {
    redis: Redis,
    /// Present until it is dropped.
    driver: Option<Runtime>,
    /// None while Redis is away.
    connection: ArcSwapOption<Redis>,
}

impl RedisBreaker {
    /// For the servers of this URL, as [`Redis::open`] reads it. Redis is away until a connection is turned on.
    ///
    /// # Errors
    /// When it is no such URL, or there can be no thread.
    pub fn new(url: &SecretString, answer_within: Duration) -> RedisResult<Self> {
        let driver = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("redis")
            .enable_all()
            .build()?;
        match Redis::driven(url, answer_within, Some(driver.handle().clone())) {
            Ok(redis) => {
                Ok(Self { redis, driver: Some(driver), connection: ArcSwapOption::empty() })
            }
            Err(error) => {
                // Dropped within a runtime, it would panic.
                driver.shutdown_background();
                Err(error)
            }
        }
    }

    /// The connection, unless Redis is away.
    pub fn connection(&self) -> Option<Arc<Redis>> {
        self.connection.load_full()
    }

    /// A connection of its own, which has answered `probe`. It is not turned on.
    ///
    /// # Errors
    /// When there was no answer within three seconds.
    pub async fn connect<T>(
        &self,
        probe: impl AsyncFnOnce(&Redis) -> RedisResult<T>,
    ) -> Result<Redis, RedisAway> {
        let connection = self.redis.another();
        Self::wait(TRIAL_TIMEOUT, probe(&connection)).await?;
        Ok(connection)
    }

    /// Waits for an answer for as long as Redis may take. Time in which this process was too busy to look for the answer
    /// is not Redis's: the wait has parts, after each of which there is a look, and one that ends late counts as one.
    ///
    /// # Errors
    /// When there was none by then.
    pub async fn wait<T>(
        within: Duration,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, RedisAway> {
        let mut answer = pin!(answer);
        for _ in 1..PARTS {
            if let Ok(answer) = timeout(within / PARTS, answer.as_mut()).await {
                return Ok(answer?);
            }
        }
        Ok(timeout(within / PARTS, answer).await??)
    }

    /// Redis is there, over this connection.
    pub fn turn_on(&self, connection: Redis) {
        self.connection.store(Some(Arc::new(connection)));
    }

    /// Redis is away.
    pub fn turn_off(&self) {
        self.connection.store(None);
    }

    /// Redis is away, as this connection has shown. False: that was known. Who is late to find out does not end the
    /// connection that came after.
    pub fn give_up(&self, connection: &Arc<Redis>) -> bool {
        let before = self.connection.compare_and_swap(&Some(Arc::clone(connection)), None);
        before.as_ref().is_some_and(|before| Arc::ptr_eq(before, connection))
    }
}

impl Drop for RedisBreaker {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which nobody may in another one.
        if let Some(driver) = self.driver.take() {
            driver.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_to_find_out_does_not_end_the_connection_that_came_after() {
        let breaker =
            RedisBreaker::new(&"redis://localhost".into(), Duration::from_secs(1)).unwrap();
        assert!(breaker.connection().is_none(), "nothing has answered yet");
        breaker.turn_on(breaker.redis.another());
        let first = breaker.connection().unwrap();
        assert!(breaker.give_up(&first));
        assert!(!breaker.give_up(&first), "it is told once");
        assert!(breaker.connection().is_none());
        breaker.turn_on(breaker.redis.another());
        assert!(!breaker.give_up(&first));
        assert!(breaker.connection().is_some_and(|now| !Arc::ptr_eq(&now, &first)));
    }
}
