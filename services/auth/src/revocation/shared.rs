//! The list of revocations in Redis, for every replica.

use std::{collections::HashMap, time::Duration};

use drawbridge_proto::auth::v1::{TokenSet, token_set::Which};
use drawbridge_sdk::Redis;
use redis::{AsyncCommands as _, RedisError};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

// Of one slot, so that a cluster can write both at once.
/// A hash: from what is revoked to when, in seconds since 1970.
const LIST: &str = "{drawbridge:auth}:revocations";
/// Counts the changes of the hash.
const VERSION: &str = "{drawbridge:auth}:revocations:version";
/// Both at once. Not as a transaction: a cluster sends a command on to where its slot has moved, and a transaction not.
const ADD: &str = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('INCR', KEYS[2])";
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// What is revoked, as it stands in Redis.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    issuer: String,
    #[serde(flatten)]
    which: EntryKind,
}

impl Entry {
    /// These tokens. Nothing when none are named.
    pub(super) fn of(tokens: &TokenSet) -> Option<Self> {
        let which = match tokens.which.clone()? {
            Which::Subject(subject) => EntryKind::Subject(subject),
            Which::ClientId(client) => EntryKind::ClientId(client),
            Which::TokenId(id) => EntryKind::TokenId(id),
        };
        Some(Self { issuer: tokens.issuer.clone(), which })
    }
}

impl From<Entry> for TokenSet {
    fn from(entry: Entry) -> Self {
        let which = match entry.which {
            EntryKind::Subject(subject) => Which::Subject(subject),
            EntryKind::ClientId(client) => Which::ClientId(client),
            EntryKind::TokenId(id) => Which::TokenId(id),
        };
        Self { issuer: entry.issuer, which: Some(which) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EntryKind {
    Subject(String),
    ClientId(String),
    TokenId(String),
}

/// The list, which connects when it is first used.
#[derive(Debug)]
pub(super) struct Shared(Redis);

impl Shared {
    pub(super) fn new(url: &SecretString) -> Result<Self, RedisError> {
        Redis::open(url, RESPONSE_TIMEOUT).map(Self)
    }

    pub(super) async fn version(&self) -> Result<u64, RedisError> {
        let version: Option<u64> = self.0.clone().get(VERSION).await?;
        Ok(version.unwrap_or_default())
    }

    /// What was revoked at `since` or later. What is older is forgotten.
    pub(super) async fn read(&self, since: u64) -> Result<Vec<(TokenSet, u64)>, RedisError> {
        let mut connection = self.0.clone();
        let entries: HashMap<String, u64> = connection.hgetall(LIST).await?;
        let (forgotten, entries): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, at)| *at < since);
        if !forgotten.is_empty() {
            let fields: Vec<_> = forgotten.into_iter().map(|(entry, _)| entry).collect();
            let _: u64 = connection.hdel(LIST, fields).await?;
        }
        let mut revoked = Vec::with_capacity(entries.len());
        for (entry, at) in entries {
            let entry: Entry = serde_json::from_str(&entry).map_err(|error| {
                RedisError::from((redis::ErrorKind::Parse, "a revocation", error.to_string()))
            })?;
            revoked.push((entry.into(), at));
        }
        Ok(revoked)
    }

    pub(super) async fn add(&self, tokens: &TokenSet, at: u64) -> Result<(), RedisError> {
        let Some(entry) = Entry::of(tokens) else { return Ok(()) };
        let entry = serde_json::to_string(&entry).map_err(|error| {
            RedisError::from((
                redis::ErrorKind::InvalidClientConfig,
                "a revocation",
                error.to_string(),
            ))
        })?;
        redis::cmd("EVAL")
            .arg(ADD)
            .arg(&[2])
            .arg(&[LIST, VERSION])
            .arg(entry)
            .arg(at)
            .query_async(&mut self.0.clone())
            .await
    }
}
