//! The connection to Redis while it is available, so that no command waits for an unavailable
//! server.

use std::{pin::pin, sync::Arc, time::Duration};

use ::redis::{RedisError, RedisResult};
use arc_swap::ArcSwapOption;
use secrecy::SecretString;
use tokio::{
    runtime::{Builder, Runtime},
    time::{error::Elapsed, timeout},
};

use super::Redis;

/// How long connecting and probing may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How many slices a wait is divided into. A slice that this process notices late still counts as
/// one.
const WAIT_SLICES: u32 = 10;

/// Redis is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum RedisUnavailable {
    /// It did not answer in time.
    #[error("Redis did not answer in time")]
    Timeout(#[from] Elapsed),
    /// It returned an error.
    #[error("Redis returned an error")]
    Redis(#[from] RedisError),
}

impl RedisUnavailable {
    /// The word for spans.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Redis(_) => "redis",
        }
    }
}

/// The connection to Redis while it is available. Its users decide when it is not, and connect again
/// in the background: a probe on another connection, not a call of a user, shows that Redis is back.
///
/// Its connections run on their own thread, which reads Redis's responses however busy this process
/// is.
#[derive(Debug)]
pub struct RedisConnection {
    redis: Redis,
    /// Present until it is dropped.
    driver: Option<Runtime>,
    /// `None` while Redis is unavailable.
    connection: ArcSwapOption<Redis>,
}

impl RedisConnection {
    /// For the servers of this URL, as [`Redis::open`] parses it. There is no connection until
    /// [`Self::set`].
    ///
    /// # Errors
    /// When the URL is invalid, or the thread cannot be created.
    pub fn new(url: &SecretString, response_timeout: Duration) -> RedisResult<Self> {
        let driver = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("redis")
            .enable_all()
            .build()?;
        match Redis::open_on(url, response_timeout, Some(driver.handle().clone())) {
            Ok(redis) => {
                Ok(Self { redis, driver: Some(driver), connection: ArcSwapOption::empty() })
            }
            Err(error) => {
                // Dropping it within a runtime would panic.
                driver.shutdown_background();
                Err(error)
            }
        }
    }

    /// The connection, if Redis is available.
    pub fn get(&self) -> Option<Arc<Redis>> {
        self.connection.load_full()
    }

    /// Opens a separate connection and probes it.
    ///
    /// # Errors
    /// When Redis did not answer within three seconds.
    pub async fn connect<T>(
        &self,
        probe: impl AsyncFnOnce(&Redis) -> RedisResult<T>,
    ) -> Result<Redis, RedisUnavailable> {
        let connection = self.redis.new_connection();
        Self::wait_for_reply(PROBE_TIMEOUT, probe(&connection)).await?;
        Ok(connection)
    }

    /// Waits for a reply. Time in which this process was too busy to poll does not count against
    /// Redis: the wait is divided into slices with a poll after each, and a slice that ends late
    /// counts as one.
    ///
    /// # Errors
    /// When there was no reply in time.
    pub async fn wait_for_reply<T>(
        within: Duration,
        reply: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, RedisUnavailable> {
        let mut reply = pin!(reply);
        for _ in 1..WAIT_SLICES {
            if let Ok(reply) = timeout(within / WAIT_SLICES, reply.as_mut()).await {
                return Ok(reply?);
            }
        }
        Ok(timeout(within / WAIT_SLICES, reply).await??)
    }

    /// Redis is available over this connection.
    pub fn set(&self, connection: Redis) {
        self.connection.store(Some(Arc::new(connection)));
    }

    /// Redis is unavailable.
    pub fn clear(&self) {
        self.connection.store(None);
    }

    /// Redis is unavailable if `connection` is the current one. Returns whether it is: a late error
    /// must not end a newer connection.
    pub fn clear_if_current(&self, connection: &Arc<Redis>) -> bool {
        let before = self.connection.compare_and_swap(&Some(Arc::clone(connection)), None);
        before.as_ref().is_some_and(|before| Arc::ptr_eq(before, connection))
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which is not allowed within another runtime.
        if let Some(driver) = self.driver.take() {
            driver.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_error_does_not_end_a_newer_connection() {
        let redis =
            RedisConnection::new(&"redis://localhost".into(), Duration::from_secs(1)).unwrap();
        assert!(redis.get().is_none(), "no connection was set yet");
        redis.set(redis.redis.new_connection());
        let first = redis.get().unwrap();
        assert!(redis.clear_if_current(&first));
        assert!(!redis.clear_if_current(&first), "it ends once");
        assert!(redis.get().is_none());
        redis.set(redis.redis.new_connection());
        assert!(!redis.clear_if_current(&first));
        assert!(redis.get().is_some_and(|now| !Arc::ptr_eq(&now, &first)));
    }
}
