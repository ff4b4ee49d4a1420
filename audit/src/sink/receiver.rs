//! What sinks have in common.

use std::time::Duration;

use super::{backlog::Batch, http::HttpReceiver, otlp::OtlpReceiver};

/// A receiver of batches.
#[derive(Debug)]
pub(super) enum Receiver {
    Http(HttpReceiver),
    Otlp(Box<OtlpReceiver>),
}

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

impl Receiver {
    /// Sends a batch of a log, and waits until it is acknowledged.
    pub(super) async fn send(&self, log: &str, batch: &Batch) -> Result<Delivered, SendError> {
        match self {
            Self::Http(receiver) => receiver.send(log, batch).await,
            Self::Otlp(receiver) => receiver.send(log, batch).await,
        }
    }
}
