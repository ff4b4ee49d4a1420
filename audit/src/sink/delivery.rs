//! What became of a batch.

use std::time::Duration;

/// A receiver has acknowledged a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// How many lines of it it refused for good.
    pub(super) rejected: u64,
}

/// A batch was not acknowledged. It is sent again.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(super) struct SendError {
    /// What went wrong, without secrets.
    pub(super) problem: String,
    /// Whether smaller batches may be accepted.
    pub(super) is_too_large: bool,
    /// How long the receiver wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl SendError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), is_too_large: false, retry_after: None }
    }
}
