//! Epochs: what was decided in another one is to be decided anew.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::auth::v1::WatchResponse;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How often the epoch is told, so that whoever listens can tell silence from constancy.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The epoch that decisions are made in. It ends when policies, keys or revocations change.
#[derive(Debug)]
pub(crate) struct Epochs {
    current: watch::Sender<WatchResponse>,
}

/// What ends an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A change of policies or keys.
    Rules,
    /// A change of revocations.
    Revocations,
}

impl Epochs {
    /// Begins somewhere: the epochs of two replicas, or of one before and after a restart, are different.
    pub(crate) fn new() -> Arc<Self> {
        let somewhere = || rand::random::<u64>().max(1);
        Arc::new(Self {
            current: watch::Sender::new(WatchResponse {
                epoch: somewhere(),
                revocations: somewhere(),
            }),
        })
    }

    /// To be read before what a decision is made on, and written after it has changed.
    pub(crate) fn current(&self) -> u64 {
        self.current.borrow().epoch
    }

    /// Ends the epoch each time that `changes` tells of something, until `stopping`.
    pub(crate) async fn end_with<T>(
        self: Arc<Self>,
        mut changes: watch::Receiver<T>,
        ending: Ending,
        stopping: CancellationToken,
    ) {
        while let Some(Ok(())) = stopping.run_until_cancelled(changes.changed()).await {
            self.current.send_modify(|current| {
                current.epoch = next(current.epoch);
                if ending == Ending::Revocations {
                    current.revocations = next(current.revocations);
                }
            });
        }
    }

    /// Tells the epoch: at once, when it changes, and every second, until `stopping`.
    pub(crate) fn tell(
        &self,
        stopping: CancellationToken,
    ) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static {
        let changes = self.current.subscribe();
        let again = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(TELL_EVERY));
        let now = changes.clone();
        let said = WatchStream::new(changes).merge(again.map(move |_| *now.borrow()));
        let stopped = async move { stopping.cancelled().await };
        futures::StreamExt::take_until(said.map(Ok), Box::pin(stopped))
    }
}

const fn next(number: u64) -> u64 {
    match number.wrapping_add(1) {
        0 => 1,
        number => number,
    }
}
