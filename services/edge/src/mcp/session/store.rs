//! Sessions in Redis: other replicas go on with them, and learn that one has ended.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_proto::mcp::v1 as pb;
use drawbridge_sdk::Redis;
use redis::{FromRedisValue, Pipeline, RedisError};
use rmcp::model::LoggingLevel;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    super::{json as structs, revision::Revision},
    SessionId,
};

const PREFIX: &str = "drawbridge:mcp:session:2:";
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long Redis is not asked after it gave no answer.
const PAUSE: Duration = Duration::from_secs(1);
/// What stands where a session has ended. It stays for as long as another replica may still have the session.
const ENDED: &[u8] = b"ended";

/// What a replica needs to go on with a session. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mcp) struct State {
    revision: String,
    elicit_form: bool,
    elicit_url: bool,
    sampling: bool,
    roots: bool,
    /// As JSON, which takes less than a parsed one while nobody asks for it. Empty: none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    extensions: Box<str>,
    pub(super) level: u8,
}

impl State {
    /// That of a session that is opened.
    pub(in crate::mcp) fn opened(revision: Revision, client: &pb::ClientCapabilities) -> Self {
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

    pub(super) fn revision(&self) -> Revision {
        Revision::negotiated(&self.revision)
    }

    pub(super) fn client(&self) -> pb::ClientCapabilities {
        let Self { elicit_form, elicit_url, sampling, roots, .. } = *self;
        let extensions = serde_json::from_str(&self.extensions).ok();
        let extensions = extensions.as_ref().map(structs::to_struct);
        pb::ClientCapabilities { elicit_form, elicit_url, sampling, roots, extensions }
    }
}

/// What Redis says of a session.
#[derive(Debug)]
pub(super) enum Known {
    State(State),
    Ended,
    /// Nothing: there is none, or Redis has lost it.
    Nothing,
    /// Redis gives no answer.
    Away,
}

pub(in crate::mcp) struct Store {
    redis: Redis,
    idle_seconds: u64,
    away_until: Mutex<Option<Instant>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Connects when first used: Redis that is away is no reason not to start.
    pub(in crate::mcp) fn new(url: &SecretString, idle: Duration) -> Result<Self, RedisError> {
        let redis = Redis::open(url, RESPONSE_TIMEOUT)?;
        Ok(Self { redis, idle_seconds: idle.as_secs().max(1), away_until: Mutex::default() })
    }

    /// Reads a session, which is in use.
    pub(super) async fn read(&self, id: SessionId) -> Known {
        let mut command = redis::pipe();
        command.cmd("GETEX").arg(key(id)).arg("EX").arg(self.idle_seconds);
        match self.run::<(Option<Vec<u8>>,)>(&command).await {
            None => Known::Away,
            Some((None,)) => Known::Nothing,
            Some((Some(text),)) if text == ENDED => Known::Ended,
            Some((Some(text),)) => {
                serde_json::from_slice(&text).map_or(Known::Nothing, Known::State)
            }
        }
    }

    /// Writes a session, where nothing is known of it.
    pub(super) async fn write(&self, id: SessionId, state: &State) {
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
        let _: Option<()> = self.run(&command).await;
    }

    /// Notes that a session has ended. False: Redis does not know.
    pub(super) async fn end(&self, id: SessionId) -> bool {
        let mut command = redis::pipe();
        command.cmd("SET").arg(key(id)).arg(ENDED).arg("EX").arg(self.idle_seconds).ignore();
        self.run::<()>(&command).await.is_some()
    }

    /// None: Redis gave no answer, now or a moment ago.
    pub(in crate::mcp) async fn run<T: FromRedisValue>(&self, command: &Pipeline) -> Option<T> {
        let away_until = || self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        if away_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let answer = command.query_async(&mut self.redis.clone()).await;
        answer
            .map_err(|error| {
                *away_until() = Some(Instant::now() + PAUSE);
                tracing::warn!(error = %drawbridge_sdk::error_chain(&error), "Redis gives no answer about sessions");
            })
            .ok()
    }
}

fn key(id: SessionId) -> String {
    format!("{PREFIX}{}", id.text())
}
