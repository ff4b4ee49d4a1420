//! Sessions in Redis, for replicas that go on with another's.

use std::time::Duration;

use drawbridge_sdk::Redis;
use redis::{AsyncCommands as _, RedisError};
use rmcp::transport::streamable_http_server::session::{SessionState, SessionStore, SessionStoreError};
use secrecy::SecretString;

const PREFIX: &str = "drawbridge:mcp:session:";
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// What a client said when it opened a session: enough to open it again elsewhere. Nothing in it is secret.
pub(crate) struct RedisStore {
    redis: Redis,
    idle_seconds: u64,
}

impl RedisStore {
    /// Connects when first used: Redis that is away is no reason not to start.
    pub(crate) fn new(url: &SecretString, idle: Duration) -> Result<Self, RedisError> {
        Ok(Self { redis: Redis::open(url, RESPONSE_TIMEOUT)?, idle_seconds: idle.as_secs().max(1) })
    }

    /// Keeps a session that is in use. Nobody waits for it.
    pub(crate) fn touch(&self, id: &str) {
        let mut redis = self.redis.clone();
        let (key, idle) = (key(id), self.idle_seconds.cast_signed());
        tokio::spawn(async move {
            let kept: Result<bool, RedisError> = redis.expire(key, idle).await;
            if let Err(error) = kept {
                tracing::debug!(%error, "cannot keep a session in Redis");
            }
        });
    }
}

#[async_trait::async_trait]
impl SessionStore for RedisStore {
    async fn load(&self, session_id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let mut redis = self.redis.clone();
        let state: Option<Vec<u8>> = redis.get(key(session_id)).await?;
        Ok(state.map(|state| serde_json::from_slice(&state)).transpose()?)
    }

    async fn store(&self, session_id: &str, state: &SessionState) -> Result<(), SessionStoreError> {
        let mut redis = self.redis.clone();
        let state = serde_json::to_vec(state)?;
        let _: () = redis.set_ex(key(session_id), state, self.idle_seconds).await?;
        Ok(())
    }

    async fn delete(&self, session_id: &str) -> Result<(), SessionStoreError> {
        let mut redis = self.redis.clone();
        let _: () = redis.del(key(session_id)).await?;
        Ok(())
    }
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}
