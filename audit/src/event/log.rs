//! Events of the log itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of this log, signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointRecord {
    /// The number of lines that it covers: all before its own.
    pub size: u64,
    /// The key that signed it, in the form of signed notes.
    pub key: String,
    /// The signed note (C2SP tlog-checkpoint).
    pub note: String,
}

/// The state of another replica's log, as that replica signed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Anchor {
    /// The origin of the other log.
    pub origin: String,
    /// The number of its lines.
    pub size: u64,
    /// The root of its Merkle tree, in Base64.
    pub root: String,
    /// Its key, in the form of signed notes.
    pub key: String,
    /// The note that it signed.
    pub note: String,
    /// The size of the anchor before, of which this one was proven to be a continuation. Absent:
    /// no proof was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Why the other log is not the continuation of what was anchored before. Empty: it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// The service started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The origin of this log in checkpoints.
    pub origin: String,
    /// The key that signs its checkpoints, in the form of signed notes.
    pub key: String,
    /// The id of the key of digests.
    pub digest_key: String,
    /// Whether the line before is the last one of a service that stopped. `false` at the start of
    /// a log too.
    #[serde(default)]
    pub after_stop: bool,
    /// An incomplete last line that was moved away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<Torn>,
    /// The log before of this replica, and why it was not continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
}

/// An incomplete last line that was moved away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Torn {
    /// The file that it is in now.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of it in hexadecimal.
    pub sha256: String,
}

/// The service stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stop {
    /// The service.
    pub service: String,
}

/// Events that could not be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// How many events.
    pub lost: u64,
    /// Since when (RFC 3339).
    pub since: String,
    /// Why: an error of the disk, `the queue is full`, …
    pub reason: String,
}
