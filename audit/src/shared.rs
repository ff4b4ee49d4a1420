//! What the writer of a log and its callers share.

use std::sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicUsize};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{peers::Peers, tree::Tree};

/// An event could not be recorded, so what it is about must be refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written: {0}")]
pub struct AuditUnavailable(pub(crate) String);

/// Events that could not be recorded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Lost {
    pub(crate) count: u64,
    pub(crate) since: Option<Timestamp>,
    pub(crate) reason: String,
}

/// What the writer and its callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) origin: String,
    /// The public key of checkpoints.
    pub(crate) public_key: String,
    pub(crate) queued_bytes: AtomicUsize,
    /// How many lines are on the disk.
    pub(crate) durable: watch::Sender<u64>,
    pub(crate) lost: Mutex<Lost>,
    /// Why the last write failed.
    pub(crate) problem: Mutex<Option<String>>,
    pub(crate) tree: Mutex<Tree>,
    /// The latest signed checkpoint, with its size.
    pub(crate) published: Mutex<Option<(u64, String)>>,
    pub(crate) peers: Mutex<Peers>,
}

/// A mutex whose holder panicked is used as it is: an audit log goes on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(origin: String, public_key: String, tree: Tree) -> Self {
        Self {
            origin,
            public_key,
            queued_bytes: AtomicUsize::default(),
            durable: watch::Sender::new(0),
            lost: Mutex::default(),
            problem: Mutex::default(),
            tree: Mutex::new(tree),
            published: Mutex::default(),
            peers: Mutex::default(),
        }
    }

    /// Counts events that are not recorded.
    pub(crate) fn lose(&self, count: u64, since: Timestamp, reason: &str) {
        let mut lost = lock(&self.lost);
        if lost.count == 0 {
            *lost = Lost { count: 0, since: Some(since), reason: reason.to_owned() };
        }
        lost.count += count;
    }
}
