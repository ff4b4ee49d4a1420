//! Epochs: a decision from an earlier epoch is no longer valid.

use std::{mem, sync::Arc, time::Duration};

use drawbridge_proto::auth::v1::WatchResponse;
use futures::stream::{once, select};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{IntervalStream, WatchStream},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    authn::Issuers,
    digest::number,
    policy::PolicyStore,
    revocation::{RevocationSummary, Revocations},
};

/// How often the epoch is sent without a change, so that subscribers can detect a lost stream.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// How long the number of an ended epoch is not announced again. A decision that began in that
/// epoch and was made after its end has arrived by then: edges wait five seconds for one.
const PAUSE: Duration = Duration::from_secs(10);
/// How often a number that must not be announced yet is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What decisions are made of.
pub(crate) struct DecisionInputs {
    /// A digest of the configuration.
    pub(crate) config: [u8; 32],
    pub(crate) policies: Arc<PolicyStore>,
    pub(crate) issuers: Arc<Issuers>,
    pub(crate) revocations: Arc<Revocations>,
}

impl DecisionInputs {
    /// A digest of the inputs, which is the same at every replica that has the same ones. It omits
    /// the issuers' keys, which replicas fetch at different times.
    fn digest(&self, revocations: RevocationSummary) -> u64 {
        let RevocationSummary { digest: revocations, times: _ } = revocations;
        number(&[
            &self.config,
            self.policies.load().revision().as_bytes(),
            &self.issuers.digest(),
            &revocations.to_be_bytes(),
        ])
    }
}

/// The epoch in which decisions are made. It ends when policies, issuers, their keys or revocations
/// change.
pub(crate) struct Epochs {
    inputs: DecisionInputs,
    current: watch::Sender<WatchResponse>,
}

impl Epochs {
    pub(crate) fn new(inputs: DecisionInputs) -> Arc<Self> {
        let revocations = *inputs.revocations.subscribe().borrow();
        let first = announcement(inputs.digest(revocations), revocations);
        Arc::new(Self { inputs, current: watch::Sender::new(first) })
    }

    /// Read it before reading the inputs of a decision. It changes after an input has changed.
    pub(crate) fn current(&self) -> u64 {
        self.current.borrow().epoch
    }

    /// Ends the epoch on each change of an input, until `stopping`.
    pub(crate) async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        let mut policies = self.inputs.policies.subscribe();
        let mut issuers = self.inputs.issuers.subscribe();
        let mut revocations = self.inputs.revocations.subscribe();
        let mut retries = interval(RETRY_INTERVAL);
        retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut numbers = Numbers::new(self.current());
        let following = async {
            loop {
                let is_changed = tokio::select! {
                    changed = policies.changed() => changed.is_ok(),
                    changed = issuers.changed() => changed.is_ok(),
                    changed = revocations.changed() => changed.is_ok(),
                    _ = retries.tick() => false,
                };
                let known = *revocations.borrow_and_update();
                let digest = self.inputs.digest(known);
                let now = announcement(numbers.advance(digest, is_changed, Instant::now()), known);
                self.current.send_if_modified(|current| mem::replace(current, now) != now);
            }
        };
        stopping.run_until_cancelled(following).await;
    }

    /// Streams the epoch: at once, on each change, and at each heartbeat, until `draining` or while
    /// the revocations are not `readable`.
    pub(crate) fn watch(
        &self,
        draining: CancellationToken,
        mut readable: watch::Receiver<bool>,
    ) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static {
        let changes = self.current.subscribe();
        let heartbeats = IntervalStream::new(interval(HEARTBEAT_INTERVAL));
        let now = changes.clone();
        let epochs = WatchStream::new(changes).merge(heartbeats.map(move |_| *now.borrow()));
        let end = async move {
            tokio::select! {
                () = draining.cancelled() => None,
                _ = readable.wait_for(|is_readable| !is_readable) => Some(Err(unreadable())),
            }
        };
        let messages = epochs.map(|epoch| Some(Ok(epoch)));
        select(messages, once(end)).map_while(|message| message)
    }
}

/// The status of a replica that accepts no token.
pub(crate) fn unreadable() -> Status {
    Status::unavailable("the revocation list cannot be read; retry")
}

fn announcement(epoch: u64, revocations: RevocationSummary) -> WatchResponse {
    let RevocationSummary { digest, times } = revocations;
    WatchResponse {
        epoch,
        revocations: number(&[&digest.to_be_bytes()]),
        revoked: times,
        heartbeat_ms: u32::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u32::MAX),
    }
}

/// The numbers of epochs. Each is the digest of the inputs, so that replicas agree on it, unless an
/// epoch with that number has just ended: then it is a random one for a while.
struct Numbers {
    digest: u64,
    announced: u64,
    /// The numbers that must not be announced again, and since when.
    ended: Vec<(u64, Instant)>,
}

impl Numbers {
    fn new(digest: u64) -> Self {
        Self { digest, announced: digest, ended: Vec::new() }
    }

    /// The number for inputs with this digest. If an input `is_changed`, it is another one than
    /// before, even if the digest is the same.
    fn advance(&mut self, digest: u64, is_changed: bool, now: Instant) -> u64 {
        self.ended.retain(|(_, ended)| now < *ended + PAUSE);
        let is_ended = |number: u64| self.ended.iter().any(|(ended, _)| *ended == number);
        let must_change = is_changed || digest != self.digest;
        let may_return = self.announced != digest && !is_ended(digest);
        if must_change || may_return {
            let next = if may_return { digest } else { rand::random::<u64>().max(1) };
            self.ended.push((self.announced, now));
            self.announced = next;
            self.digest = digest;
        }
        self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_with_the_same_inputs_announce_the_same_numbers() {
        let now = Instant::now();
        let (mut a, mut b) = (Numbers::new(1), Numbers::new(1));
        assert_eq!(a.advance(1, false, now), b.advance(1, false, now));
        assert_eq!((a.advance(2, true, now), b.advance(2, true, now)), (2, 2));
        // One of them missed a state in between.
        assert_eq!((a.advance(3, true, now), a.advance(4, true, now)), (3, 4));
        assert_eq!(b.advance(4, true, now), 4);
    }

    /// Otherwise a decision that began in the first state, and was made in the second one, would be
    /// valid in the third.
    #[test]
    fn a_number_that_has_ended_returns_only_after_a_pause() {
        let start = Instant::now();
        let mut numbers = Numbers::new(1);
        assert_eq!(numbers.advance(2, true, start), 2);
        let between = numbers.advance(1, true, start);
        assert!(![0, 1, 2].contains(&between), "{between}");
        let almost = start + PAUSE - Duration::from_millis(1);
        assert_eq!(numbers.advance(1, false, almost), between);
        assert_eq!(numbers.advance(1, false, start + PAUSE), 1);
        assert_eq!(numbers.advance(1, false, start + 2 * PAUSE), 1);
    }

    /// An issuer that withdraws a key changes decisions but not the digest.
    #[test]
    fn a_change_that_is_not_in_the_digest_ends_the_epoch_for_a_pause() {
        let start = Instant::now();
        let mut numbers = Numbers::new(1);
        let between = numbers.advance(1, true, start);
        let again = numbers.advance(1, true, start);
        assert!(between != 1 && again != 1 && again != between);
        assert_eq!(numbers.advance(1, false, start), again);
        assert_eq!(numbers.advance(1, false, start + PAUSE), 1);
    }
}
