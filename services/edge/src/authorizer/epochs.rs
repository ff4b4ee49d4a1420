//! The epochs that the replicas of auth announce, and what they mean together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// The epoch while no replica of auth is live.
pub(crate) const NO_EPOCH: u64 = 0;

/// The epoch of all live replicas of auth together.
#[derive(Clone, Copy, Debug)]
pub(super) struct CurrentEpoch {
    /// The epoch that all of them announce. While they differ, a number that no replica announces,
    /// another one for each set of epochs. [`NO_EPOCH`] if none is live.
    pub(super) number: u64,
    /// What was decided in another period is not used again.
    pub(super) period: Period,
    /// When the first of them is silent for too long.
    valid_until: Instant,
}

/// A time in which no live replica changed its epoch or was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(u64);

#[cfg(test)]
impl Period {
    pub(super) const FIRST: Self = Self(0);
}

impl CurrentEpoch {
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        self.number != NO_EPOCH && now < self.valid_until
    }
}

/// Knows what each live replica announced last.
#[derive(Debug)]
pub(super) struct Epochs {
    live: Mutex<LiveReplicas>,
    current: watch::Sender<CurrentEpoch>,
}

#[derive(Debug, Default)]
struct LiveReplicas {
    /// The epoch of each connection, and how long its silence is accepted.
    announced: BTreeMap<u64, (u64, Instant)>,
    connections: u64,
}

/// One replica, over one connection. It counts as live from its first announcement until this is
/// dropped.
#[derive(Debug)]
pub(super) struct ReplicaEpoch<'a> {
    epochs: &'a Epochs,
    connection: u64,
}

impl Epochs {
    pub(super) fn new() -> Arc<Self> {
        let current =
            CurrentEpoch { number: NO_EPOCH, period: Period(0), valid_until: Instant::now() };
        Arc::new(Self { live: Mutex::default(), current: watch::Sender::new(current) })
    }

    pub(super) fn current(&self) -> CurrentEpoch {
        *self.current.borrow()
    }

    /// Notifies of each new period.
    pub(super) fn subscribe(&self) -> watch::Receiver<CurrentEpoch> {
        self.current.subscribe()
    }

    pub(super) fn join(&self) -> ReplicaEpoch<'_> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.connections += 1;
        ReplicaEpoch { epochs: self, connection: live.connections }
    }

    fn update(&self, change: impl FnOnce(&mut BTreeMap<u64, (u64, Instant)>) -> bool) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = change(&mut live.announced);
        let number = combined(live.announced.values().map(|(epoch, _)| *epoch).collect());
        let until = live.announced.values().map(|(_, until)| *until).min();
        // Published under the lock, so that the last change is the one in effect.
        self.current.send_if_modified(|current| {
            let is_over = current.number != number || is_lost;
            if is_over {
                current.period.0 += 1;
            }
            current.number = number;
            current.valid_until = until.unwrap_or(current.valid_until);
            is_over
        });
    }
}

impl ReplicaEpoch<'_> {
    /// The replica is in this epoch. Until `until` it may be silent.
    pub(super) fn announce(&self, epoch: u64, until: Instant) {
        self.epochs.update(|announced| {
            announced.insert(self.connection, (epoch, until));
            false
        });
    }

    /// Whether another replica is live, and not silent.
    pub(super) fn has_other_live(&self) -> bool {
        let live = self.epochs.live.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut others = live.announced.iter().filter(|(other, _)| **other != self.connection);
        others.any(|(_, (_, until))| now < *until)
    }
}

impl Drop for ReplicaEpoch<'_> {
    fn drop(&mut self) {
        self.epochs.update(|announced| announced.remove(&self.connection).is_some());
    }
}

/// One number for these epochs: theirs, if they are equal.
fn combined(epochs: BTreeSet<u64>) -> u64 {
    match epochs.len() {
        0 => NO_EPOCH,
        1 => epochs.into_iter().next().unwrap_or(NO_EPOCH),
        _ => {
            let digest = epochs
                .iter()
                .fold(Sha256::new(), |digest, epoch| digest.chain_update(epoch.to_be_bytes()));
            let digest: [u8; 32] = digest.finalize().into();
            u64::from_be_bytes(*digest.first_chunk().unwrap_or(&[u8::MAX; 8])).max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn the_epoch_is_that_of_all_live_replicas_and_none_without_one() {
        let epochs = Epochs::new();
        assert_eq!(epochs.current().number, NO_EPOCH);
        let (one, two) = (epochs.join(), epochs.join());
        assert_eq!(epochs.current().number, NO_EPOCH, "neither has announced its epoch");
        one.announce(7, later());
        two.announce(7, later());
        assert_eq!(epochs.current().number, 7);
        drop(one);
        assert_eq!(epochs.current().number, 7);
        drop(two);
        assert_eq!(epochs.current().number, NO_EPOCH);
        assert!(!epochs.current().is_valid(Instant::now()));
    }

    /// Otherwise a stream would outlive what a restarted auth no longer accepts.
    #[test]
    fn a_lost_replica_ends_the_period_though_the_number_returns() {
        let epochs = Epochs::new();
        let mut changes = epochs.subscribe();
        let (one, two) = (epochs.join(), epochs.join());
        one.announce(7, later());
        two.announce(7, later());
        let before = changes.borrow_and_update().period;
        drop(one);
        assert!(changes.has_changed().unwrap());
        let now = *changes.borrow_and_update();
        assert_eq!(now.number, 7);
        assert_ne!(now.period, before);
    }

    #[test]
    fn replicas_that_differ_have_a_number_that_none_of_them_announces() {
        let epochs = Epochs::new();
        let (one, two) = (epochs.join(), epochs.join());
        one.announce(7, later());
        two.announce(8, later());
        let differing = epochs.current().number;
        assert!(![NO_EPOCH, 7, 8].contains(&differing));
        two.announce(9, later());
        assert_ne!(epochs.current().number, differing, "another set of epochs");
        one.announce(9, later());
        assert_eq!(epochs.current().number, 9);
    }

    #[test]
    fn a_period_ends_when_a_replica_changes_or_is_lost_and_not_when_one_joins_or_repeats() {
        let epochs = Epochs::new();
        let one = epochs.join();
        one.announce(7, later());
        let first = epochs.current().period;
        one.announce(7, later());
        let two = epochs.join();
        two.announce(7, later());
        assert_eq!(epochs.current().period, first);
        drop(two);
        let second = epochs.current().period;
        assert_ne!(second, first, "a replica was lost");
        one.announce(8, later());
        one.announce(7, later());
        assert_ne!(epochs.current().period, second, "the epoch came back");
    }

    #[test]
    fn an_epoch_is_valid_until_the_first_live_replica_is_silent_for_too_long() {
        let epochs = Epochs::new();
        let (one, two) = (epochs.join(), epochs.join());
        let now = Instant::now();
        let [soon, late] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        one.announce(7, soon);
        two.announce(7, late);
        assert!(epochs.current().is_valid(now) && !epochs.current().is_valid(soon));
        one.announce(7, late);
        assert!(epochs.current().is_valid(soon) && !epochs.current().is_valid(late));
        assert!(one.has_other_live());
        two.announce(7, now);
        assert!(!one.has_other_live(), "the other one is silent");
        assert!(two.has_other_live());
    }
}
