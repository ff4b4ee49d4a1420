//! The kinds of receivers.

use super::{
    backlog::Batch,
    delivery::{Delivered, SendError},
    http::HttpReceiver,
    otlp::OtlpReceiver,
};

/// A receiver of batches.
#[derive(Debug)]
pub(super) enum Receiver {
    Http(HttpReceiver),
    Otlp(Box<OtlpReceiver>),
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
