//! The audit log: who did what, why it was allowed, and evidence of whether the record was changed.
//!
//! Each replica of a service writes one log of JSON lines. A line has the hash of the line before;
//! all lines are the leaves of a Merkle tree (RFC 6962), whose state is signed as a checkpoint
//! (C2SP tlog-checkpoint) and written into the logs of other replicas. To rewrite one log,
//! the logs of all others have to be rewritten too. See `docs/reference/audit.md`.

mod checkpoint;
mod config;
pub mod event;
mod exchange;
pub mod export;
mod files;
mod folder;
mod key;
mod lines;
mod log;
mod merkle;
mod metrics;
pub mod note;
mod open;
mod output;
mod peers;
mod position;
pub mod prove;
pub mod read;
mod shared;
mod sink;
mod sink_config;
#[cfg(test)]
mod testing;
mod tree;
pub mod verify;
mod writer;

pub use self::{
    checkpoint::{Checkpoint, CheckpointError},
    config::{AuditConfig, AuditMode},
    event::{Event, Record},
    exchange::EXCHANGE_PATH,
    key::DigestKey,
    log::AuditLog,
    merkle::{Frontier, Hash, is_consistent, root_of_inclusion},
    metrics::METRICS,
    open::AuditError,
    peers::{ConsistencyProof, PeerMessage},
    shared::AuditUnavailable,
    sink_config::SinkConfig,
};
