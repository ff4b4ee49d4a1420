//! Epochs: a decision from an earlier epoch is no longer valid.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::auth::v1::WatchResponse;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How often the epoch is sent without a change, so that subscribers can detect a lost stream.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The epoch in which decisions are made. It ends when policies, issuers, their keys or revocations
/// change.
#[derive(Debug)]
pub(crate) struct Epochs {
    current: watch::Sender<WatchResponse>,
}

/// What ends an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochEnd {
    /// Policies, issuers or their keys changed.
    PoliciesOrIssuers,
    /// Revocations changed.
    Revocations,
}

impl Epochs {
    /// Starts at a random number, so that epochs of two replicas, or before and after a restart,
    /// differ.
    pub(crate) fn new() -> Arc<Self> {
        let random = || rand::random::<u64>().max(1);
        Arc::new(Self {
            current: watch::Sender::new(WatchResponse { epoch: random(), revocations: random() }),
        })
    }

    /// Read it before reading the inputs of a decision. It advances after an input has changed.
    pub(crate) fn current(&self) -> u64 {
        self.current.borrow().epoch
    }

    /// Ends the epoch on each notification of `changes`, until `stopping`.
    pub(crate) async fn advance_on<T>(
        self: Arc<Self>,
        mut changes: watch::Receiver<T>,
        end: EpochEnd,
        stopping: CancellationToken,
    ) {
        while let Some(Ok(())) = stopping.run_until_cancelled(changes.changed()).await {
            self.current.send_modify(|current| {
                current.epoch = next(current.epoch);
                if end == EpochEnd::Revocations {
                    current.revocations = next(current.revocations);
                }
            });
        }
    }

    /// Streams the epoch: at once, on each change, and every second, until `stopping`.
    pub(crate) fn watch(
        &self,
        stopping: CancellationToken,
    ) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static {
        let changes = self.current.subscribe();
        let heartbeats =
            tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(HEARTBEAT_INTERVAL));
        let now = changes.clone();
        let epochs = WatchStream::new(changes).merge(heartbeats.map(move |_| *now.borrow()));
        let stopped = async move { stopping.cancelled().await };
        futures::StreamExt::take_until(epochs.map(Ok), Box::pin(stopped))
    }
}

const fn next(number: u64) -> u64 {
    match number.wrapping_add(1) {
        0 => 1,
        number => number,
    }
}
