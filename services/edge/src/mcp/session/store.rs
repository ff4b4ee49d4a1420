//! Sessions in Redis: other replicas restore them, and learn when one has ended.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_proto::mcp::v1 as pb;
use drawbridge_runtime::{Redis, trace};
use redis::{FromRedisValue, Pipeline, RedisError};
use rmcp::model::LoggingLevel;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;

use super::{
    super::{json as structs, revision::ProtocolRevision},
    SessionId,
};

const PREFIX: &str = "drawbridge:mcp:session:2:";
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long no command is sent after Redis failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The value of an ended session. It exists for as long as another replica may still have the
/// session.
const ENDED: &[u8] = b"ended";

/// The state from which a replica restores a session. It contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mcp) struct SessionState {
    revision: String,
    elicit_form: bool,
    elicit_url: bool,
    sampling: bool,
    roots: bool,
    /// As JSON, which takes less memory than the parsed form. Empty: no extensions.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    extensions: Box<str>,
    pub(super) level: u8,
}

impl SessionState {
    /// The state of a new session.
    pub(in crate::mcp) fn new(revision: ProtocolRevision, client: &pb::ClientCapabilities) -> Self {
        let pb::ClientCapabilities { elicit_form, elicit_url, sampling, roots, extensions } =
            client;
        let extensions =
            extensions.as_ref().map(|extensions| structs::from_struct(extensions).to_string());
        Self {
            revision: revision.version().to_string(),
            elicit_form: *elicit_form,
            elicit_url: *elicit_url,
            sampling: *sampling,
            roots: *roots,
            extensions: extensions.unwrap_or_default().into(),
            level: LoggingLevel::Info as u8,
        }
    }

    pub(super) fn revision(&self) -> ProtocolRevision {
        ProtocolRevision::negotiate(&self.revision)
    }

    pub(super) fn client(&self) -> pb::ClientCapabilities {
        let Self { elicit_form, elicit_url, sampling, roots, .. } = *self;
        let extensions = serde_json::from_str(&self.extensions).ok();
        let extensions = extensions.as_ref().map(structs::to_struct);
        pb::ClientCapabilities { elicit_form, elicit_url, sampling, roots, extensions }
    }
}

/// A session's entry in Redis.
#[derive(Debug)]
pub(super) enum StoredSession {
    State(SessionState),
    Ended,
    /// There is no such session, or Redis has lost it.
    Missing,
    /// Redis is unavailable.
    Unavailable,
}

pub(in crate::mcp) struct SessionStore {
    redis: Redis,
    idle_seconds: u64,
    unavailable_until: Mutex<Option<Instant>>,
}

impl fmt::Debug for SessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionStore")
    }
}

impl SessionStore {
    /// Connects at the first command: the edge starts without Redis too.
    pub(in crate::mcp) fn new(url: &SecretString, idle: Duration) -> Result<Self, RedisError> {
        let redis = Redis::open(url, RESPONSE_TIMEOUT)?;
        Ok(Self { redis, idle_seconds: idle.as_secs().max(1), unavailable_until: Mutex::default() })
    }

    /// Reads a session, and extends its lifetime.
    pub(super) async fn read(&self, id: SessionId) -> StoredSession {
        let mut command = redis::pipe();
        command.cmd("GETEX").arg(key(id)).arg("EX").arg(self.idle_seconds);
        match self.run::<(Option<Vec<u8>>,)>("GETEX", &command).await {
            None => StoredSession::Unavailable,
            Some((None,)) => StoredSession::Missing,
            Some((Some(text),)) if text == ENDED => StoredSession::Ended,
            Some((Some(text),)) => {
                serde_json::from_slice(&text).map_or(StoredSession::Missing, StoredSession::State)
            }
        }
    }

    /// Writes a session unless it has an entry.
    pub(super) async fn write(&self, id: SessionId, state: &SessionState) {
        let Ok(text) = serde_json::to_vec(state) else { return };
        let mut command = redis::pipe();
        command
            .cmd("SET")
            .arg(key(id))
            .arg(text)
            .arg("EX")
            .arg(self.idle_seconds)
            .arg("NX")
            .ignore();
        let _: Option<()> = self.run("SET", &command).await;
    }

    /// Writes that a session has ended. False: Redis was unavailable.
    pub(super) async fn end(&self, id: SessionId) -> bool {
        let mut command = redis::pipe();
        command.cmd("SET").arg(key(id)).arg(ENDED).arg("EX").arg(self.idle_seconds).ignore();
        self.run::<()>("SET", &command).await.is_some()
    }

    /// Runs a command. `None`: Redis is unavailable, or was a moment ago.
    pub(in crate::mcp) async fn run<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Pipeline,
    ) -> Option<T> {
        let unavailable_until =
            || self.unavailable_until.lock().unwrap_or_else(PoisonError::into_inner);
        if unavailable_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let span = trace::redis_span(operation);
        let mut redis = self.redis.clone();
        let reply = command.query_async(&mut redis).instrument(span.clone()).await;
        trace::end_with(&span, reply.as_ref().err().map(|_| "redis"));
        reply
            .map_err(|error| {
                *unavailable_until() = Some(Instant::now() + RETRY_DELAY);
                let error = drawbridge_runtime::error_chain(&error);
                tracing::warn!(%error, "the session store in Redis is unavailable");
            })
            .ok()
    }
}

fn key(id: SessionId) -> String {
    format!("{PREFIX}{}", id.text())
}
