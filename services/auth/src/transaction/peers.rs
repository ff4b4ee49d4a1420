//! The exchange of keys between the replicas of auth: each fetches the keys of the others, so that
//! every one of them publishes all keys.

use std::{
    collections::{BTreeMap, HashSet},
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use drawbridge_runtime::{Condition, error_chain};
use drawbridge_transport::{ReplicaDocument, ReplicaDocuments};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    keyring::{KEYS_MAX, Keyring},
    timing::KeyTiming,
};
use crate::metrics::{KEYS_UNCONFIRMED, PEER_KEYS_REFUSED, PEERS, PEERS_SILENT};

/// Where a replica's own keys are.
const OWN_KEYS_PATH: &str = "/.well-known/jwks.json?own";
/// The most keys of one peer that are read: the previous, the signing and the next one, and as many
/// again.
const KEYS_PER_PEER_MAX: usize = 6;
/// The shortest time between two polls, whatever peers ask for.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(200);

/// What a replica answers to its peers: its own keys (RFC 7517 section 5), and the ids of all keys
/// that it publishes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OwnKeys {
    pub(super) keys: Vec<serde_json::Value>,
    pub(super) held: Vec<String>,
}

/// What this replica does with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It fetches the keys of its peers, and they fetch its own.
    Joining,
    /// It publishes all keys; verifiers may not have seen its own yet.
    Publishing,
    /// It signs.
    Signing,
}

/// The outcome of one poll of all peers.
#[derive(Debug, Default)]
struct Poll {
    completed_at: Option<Instant>,
    /// For each peer that answered: the ids of the keys that it publishes.
    held: Vec<HashSet<String>>,
    /// What is wrong with the others, by their addresses; those whose keys are refused, too.
    problems: BTreeMap<String, String>,
    /// How many did not answer, although something may run there.
    silent: usize,
}

impl Poll {
    /// Whether every peer that runs answered and publishes this key.
    fn confirms(&self, kid: &str) -> bool {
        let is_complete = self.completed_at.is_some() && self.silent == 0;
        is_complete && self.held.iter().all(|held| held.contains(kid))
    }
}

/// The other replicas of auth.
pub(crate) struct KeyPeers {
    pub(super) keyring: Arc<Keyring>,
    /// Absent: there are no other replicas.
    documents: Option<ReplicaDocuments>,
    timing: KeyTiming,
    /// How long a key is published after its replica was last seen.
    retire: Duration,
    phase: watch::Sender<Phase>,
    last: watch::Sender<Poll>,
    /// How many keys wait for their confirmation.
    waiting: AtomicUsize,
    /// A peer, or a key of this replica, needs a poll now.
    wanted: Notify,
}

impl KeyPeers {
    /// `documents` leads to all replicas, of which this may be one. Tokens live for `ttl`.
    pub(crate) fn new(
        keyring: Arc<Keyring>,
        documents: Option<ReplicaDocuments>,
        timing: KeyTiming,
        ttl: Duration,
    ) -> Arc<Self> {
        let phase = if documents.is_some() { Phase::Joining } else { Phase::Signing };
        Arc::new(Self {
            keyring,
            documents,
            timing,
            retire: ttl + timing.grace,
            phase: watch::Sender::new(phase),
            last: watch::Sender::default(),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
        })
    }

    /// Whether there may be other replicas.
    pub(crate) fn exist(&self) -> bool {
        self.documents.is_some()
    }

    /// Whether the signing key is published everywhere.
    pub(crate) fn may_sign(&self) -> bool {
        *self.phase.borrow() == Phase::Signing && !self.is_stalled()
    }

    /// Whether all keys of the peers are known.
    pub(super) fn is_complete(&self) -> bool {
        *self.phase.borrow() != Phase::Joining && !self.is_stalled()
    }

    /// Polls because a peer wants its key to be published.
    pub(super) fn poll_for(&self, kid: &str) {
        if self.keyring.published().find(kid).is_none() {
            self.wanted.notify_one();
        }
    }

    fn is_stalled(&self) -> bool {
        let polled_at = self.last.borrow().completed_at;
        self.documents.is_some() && polled_at.is_none_or(|at| at.elapsed() > self.timing.stall_max)
    }

    /// Waits until the peers publish the first key of this replica and verifiers can know it. Until
    /// then `condition` is not met. Ends with `stopping`.
    pub(crate) async fn join(self: Arc<Self>, condition: Condition, stopping: CancellationToken) {
        condition.set(Err("it is not published everywhere yet".to_owned()));
        let joining = async {
            self.confirmed(&self.keyring.newest(), Duration::ZERO).await;
            self.phase.send_replace(Phase::Publishing);
            sleep(self.timing.lead_at_start).await;
            self.phase.send_replace(Phase::Signing);
            tracing::info!("the signing key is published by every replica of auth");
            condition.set(Ok(()));
        };
        stopping.run_until_cancelled(joining).await;
        stopping.cancelled().await;
    }

    /// Waits until all peers publish this key, for `least` and as much longer as peers may be
    /// silent.
    pub(super) async fn confirmed(&self, kid: &str, least: Duration) {
        if self.documents.is_none() {
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.wanted.notify_one();
        let mut polls = self.last.subscribe();
        let confirmed = polls.wait_for(|poll| poll.confirms(kid));
        let result = timeout(least + self.timing.confirm_timeout, confirmed).await.is_ok();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if !result {
            let problems = self.last.borrow().problems.clone();
            KEYS_UNCONFIRMED.get().increment(1);
            tracing::warn!(
                kid,
                ?problems,
                "not every replica of auth publishes this key; it signs nevertheless: tool \
                 services that fetch keys from such a replica refuse its tokens"
            );
        }
    }

    /// Polls the peers until `stopping`.
    pub(crate) async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        let Some(documents) = &self.documents else { return };
        let polling = async {
            loop {
                self.poll(documents).await;
                sleep(POLL_INTERVAL_MIN.min(self.timing.confirm_interval)).await;
                let is_waiting = self.waiting.load(Ordering::Relaxed) > 0;
                let timing = &self.timing;
                let pause = if is_waiting { timing.confirm_interval } else { timing.poll_interval };
                let _ = timeout(pause, self.wanted.notified()).await;
            }
        };
        stopping.run_until_cancelled(polling).await;
    }

    async fn poll(&self, documents: &ReplicaDocuments) {
        let wanted = self.keyring.newest();
        let answers = documents.fetch(&format!("{OWN_KEYS_PATH}&want={wanted}")).await;
        let now = Instant::now();
        let mut poll = Poll { completed_at: Some(now), ..Poll::default() };
        PEERS.get().set(u32::try_from(answers.len()).unwrap_or(u32::MAX));
        for ReplicaDocument { replica, body } in answers {
            // Nothing runs there: when it starts, it fetches all keys before it publishes any.
            let is_absent =
                body.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            let answer = body
                .map_err(|error| error_chain(&error))
                .and_then(|body| serde_json::from_slice(&body).map_err(|error| error.to_string()));
            match answer {
                Ok(answer) => self.take(replica, answer, now, &mut poll),
                Err(error) => {
                    poll.silent += usize::from(!is_absent);
                    poll.problems.insert(replica, error);
                }
            }
        }
        self.keyring.expire(now);
        PEERS_SILENT.get().set(u32::try_from(poll.silent).unwrap_or(u32::MAX));
        self.report(&poll);
        self.last.send_replace(poll);
    }

    fn take(&self, replica: String, answer: OwnKeys, now: Instant, poll: &mut Poll) {
        let OwnKeys { mut keys, held } = answer;
        keys.truncate(KEYS_PER_PEER_MAX);
        let refused = self.keyring.list(&keys, now + self.retire);
        for error in &refused {
            PEER_KEYS_REFUSED.with([error.label().into()]).increment(1);
        }
        let held: HashSet<_> = held.into_iter().take(KEYS_MAX).collect();
        if let Some(error) = refused.first() {
            poll.problems.insert(replica, format!("one of its keys is refused: {error}"));
        } else if *self.phase.borrow() == Phase::Signing
            && !held.contains(self.keyring.signing().id())
        {
            let problem = "it does not publish the signing key of this replica";
            poll.problems.insert(replica, problem.to_owned());
        }
        poll.held.push(held);
    }

    /// Logs what is wrong with a peer when that changes.
    fn report(&self, poll: &Poll) {
        let last = self.last.borrow();
        for (peer, problem) in &poll.problems {
            if last.problems.get(peer) != Some(problem) {
                tracing::warn!(peer, problem, "a replica of auth does not exchange keys");
            }
        }
        for peer in last.problems.keys().filter(|peer| !poll.problems.contains_key(*peer)) {
            tracing::info!(peer, "a replica of auth exchanges keys again, or is gone");
        }
    }
}
