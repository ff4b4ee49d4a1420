//! The revocation list in Redis, shared by all replicas.

use std::{collections::HashMap, time::Duration};

use drawbridge_proto::auth::v1::{TokenSet, token_set::Which};
use drawbridge_runtime::{Redis, trace};
use redis::{AsyncCommands as _, RedisError};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;

// The hash tag puts both keys in one slot, so that a cluster can write them together.
/// A hash from revoked tokens to times in seconds since 1970.
const LIST: &str = "{drawbridge:auth}:revocations";
/// Counts changes of the hash.
const VERSION: &str = "{drawbridge:auth}:revocations:version";
/// Writes both keys. A script rather than a transaction: a cluster redirects commands to a moved
/// slot, but not transactions.
const ADD: &str = "for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end \
                   redis.call('INCR', KEYS[2])";
/// How many revocations one script writes.
const ADDED_MAX: usize = 1000;
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A revocation as stored in Redis.
#[derive(Serialize, Deserialize)]
pub(super) struct RevocationEntry {
    issuer: String,
    #[serde(flatten)]
    which: RevokedName,
}

impl RevocationEntry {
    /// The entry for these tokens. `None` if they name none.
    pub(super) fn new(tokens: &TokenSet) -> Option<Self> {
        let which = match tokens.which.clone()? {
            Which::Subject(subject) => RevokedName::Subject(subject),
            Which::ClientId(client) => RevokedName::ClientId(client),
            Which::TokenId(id) => RevokedName::TokenId(id),
        };
        Some(Self { issuer: tokens.issuer.clone(), which })
    }
}

impl From<RevocationEntry> for TokenSet {
    fn from(entry: RevocationEntry) -> Self {
        let which = match entry.which {
            RevokedName::Subject(subject) => Which::Subject(subject),
            RevokedName::ClientId(client) => Which::ClientId(client),
            RevokedName::TokenId(id) => Which::TokenId(id),
        };
        Self { issuer: entry.issuer, which: Some(which) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RevokedName {
    Subject(String),
    ClientId(String),
    TokenId(String),
}

/// The shared list. It connects at first use.
#[derive(Debug)]
pub(super) struct SharedRevocations(Redis);

impl SharedRevocations {
    pub(super) fn new(url: &SecretString) -> Result<Self, RedisError> {
        Redis::open(url, RESPONSE_TIMEOUT).map(Self)
    }

    pub(super) async fn version(&self) -> Result<u64, RedisError> {
        let version: Option<u64> = self.0.clone().get(VERSION).await?;
        Ok(version.unwrap_or_default())
    }

    /// Reads revocations at `since` or later, and deletes older ones.
    pub(super) async fn read(&self, since: u64) -> Result<Vec<(TokenSet, u64)>, RedisError> {
        let mut connection = self.0.clone();
        let entries: HashMap<String, u64> = connection.hgetall(LIST).await?;
        let (expired, entries): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, at)| *at < since);
        if !expired.is_empty() {
            let fields: Vec<_> = expired.into_iter().map(|(entry, _)| entry).collect();
            let _: u64 = connection.hdel(LIST, fields).await?;
        }
        let mut revoked = Vec::with_capacity(entries.len());
        for (entry, at) in entries {
            let entry: RevocationEntry = serde_json::from_str(&entry).map_err(|error| {
                RedisError::from((redis::ErrorKind::Parse, "a revocation", error.to_string()))
            })?;
            revoked.push((entry.into(), at));
        }
        Ok(revoked)
    }

    /// Adds revocations, and counts the change.
    pub(super) async fn add<'a>(
        &self,
        revoked: impl IntoIterator<Item = (&'a TokenSet, u64)>,
    ) -> Result<(), RedisError> {
        let entry = |(tokens, at): (&TokenSet, u64)| {
            let entry = RevocationEntry::new(tokens)?;
            Some(serde_json::to_string(&entry).map(|entry| (entry, at)))
        };
        let entries: Vec<_> =
            revoked.into_iter().filter_map(entry).collect::<Result<_, _>>().map_err(|error| {
                let kind = redis::ErrorKind::InvalidClientConfig;
                RedisError::from((kind, "a revocation", error.to_string()))
            })?;
        for entries in entries.chunks(ADDED_MAX) {
            let mut script = redis::cmd("EVAL");
            script.arg(ADD).arg(&[2]).arg(&[LIST, VERSION]);
            for (entry, at) in entries {
                script.arg(entry).arg(at);
            }
            let span = trace::redis_span("EVAL");
            let mut redis = self.0.clone();
            let added = script.query_async(&mut redis).instrument(span.clone()).await;
            trace::end_with(&span, added.as_ref().err().map(|_| "redis"));
            let () = added?;
        }
        Ok(())
    }
}
