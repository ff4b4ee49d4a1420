//! Sessions in Redis, for replicas that go on with another's.

use std::time::Duration;

use redis::{
    AsyncCommands as _, Client, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use rmcp::transport::streamable_http_server::session::{SessionState, SessionStore, SessionStoreError};
use secrecy::{ExposeSecret as _, SecretString};

const PREFIX: &str = "drawbridge:mcp:session:";
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
const RETRIES: usize = 2;

/// What a client said when it opened a session: enough to open it again elsewhere. Nothing in it is secret.
pub(crate) struct RedisStore {
    connection: ConnectionManager,
    idle_seconds: u64,
}

impl RedisStore {
    /// Connects when first used: Redis that is away is no reason not to start.
    pub(crate) fn new(url: &SecretString, idle: Duration) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(RETRIES);
        let client = Client::open(url.expose_secret())?;
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(Self { connection, idle_seconds: idle.as_secs().max(1) })
    }

    /// Keeps a session that is in use. Nobody waits for it.
    pub(crate) fn touch(&self, id: &str) {
        let mut connection = self.connection.clone();
        let (key, idle) = (key(id), self.idle_seconds.cast_signed());
        tokio::spawn(async move {
            let kept: Result<bool, RedisError> = connection.expire(key, idle).await;
            if let Err(error) = kept {
                tracing::debug!(%error, "cannot keep a session in Redis");
            }
        });
    }
}

#[async_trait::async_trait]
impl SessionStore for RedisStore {
    async fn load(&self, session_id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let mut connection = self.connection.clone();
        let state: Option<Vec<u8>> = connection.get(key(session_id)).await?;
        Ok(state.map(|state| serde_json::from_slice(&state)).transpose()?)
    }

    async fn store(&self, session_id: &str, state: &SessionState) -> Result<(), SessionStoreError> {
        let mut connection = self.connection.clone();
        let state = serde_json::to_vec(state)?;
        let _: () = connection.set_ex(key(session_id), state, self.idle_seconds).await?;
        Ok(())
    }

    async fn delete(&self, session_id: &str) -> Result<(), SessionStoreError> {
        let mut connection = self.connection.clone();
        let _: () = connection.del(key(session_id)).await?;
        Ok(())
    }
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}
