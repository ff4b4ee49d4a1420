//! What a replica knows of the logs of others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{Checkpoint, log_of},
    event::Anchor,
    merkle::{Hash, is_consistent},
    note::VerificationKey,
};

/// The most other logs.
const PEERS_MAX: usize = 256;
/// The most sizes that one message has proofs for.
pub(crate) const PROOFS_MAX: usize = 8;
/// How many messages in a row may lack what proves that a log only grew. A message may overtake
/// another one, and the first one after a restart has no proof.
pub(crate) const UNPROVEN_MAX: u32 = 3;

/// What replicas send one another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// The key of the sender's log, in the form of signed notes.
    pub key: String,
    /// The sender's latest signed checkpoint. Absent: it has none yet.
    pub checkpoint: Option<String>,
    /// Proofs that its log continues earlier states.
    pub proofs: Vec<ConsistencyProof>,
    /// The latest sizes of other logs that the sender has recorded, by origin. The next message to
    /// it has a proof from there.
    pub seen: BTreeMap<String, u64>,
}

/// A proof that a log continues its own earlier state (RFC 6962 section 2.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsistencyProof {
    /// The size of the earlier state.
    pub since: u64,
    /// The hashes of the proof.
    pub hashes: Vec<Hash>,
}

/// What is known of one other log.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    key: String,
    pub(crate) size: u64,
    root: Hash,
    /// How many messages in a row did not prove that it only grew.
    unproven: u32,
    /// Another key that messages in its name had. It replaces nothing.
    other_key: Option<String>,
}

/// What is known of the other logs.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) known: BTreeMap<String, Peer>,
    /// The sizes of this log that others have recorded.
    pub(crate) wanted: BTreeSet<u64>,
}

impl Peer {
    fn new(key: &str, size: u64, root: Hash) -> Self {
        Self { key: key.to_owned(), size, root, unproven: 0, other_key: None }
    }
}

impl Peers {
    /// Continues with what was recorded before a restart.
    pub(crate) fn restore(&mut self, anchors: &[Anchor]) {
        for Anchor { origin, size, root, key, .. } in anchors {
            if let Some(root) = Hash::parse(root) {
                let peer = Peer::new(key, *size, root);
                self.known.insert(origin.clone(), peer);
            }
        }
    }

    /// Compares a checkpoint with what is known of its log. Returns the anchor to record.
    pub(crate) fn receive(
        &mut self,
        message: &PeerMessage,
        checkpoint: &Checkpoint,
    ) -> Option<Anchor> {
        let Checkpoint { origin, size, root } = checkpoint;
        if self.known.len() >= PEERS_MAX && !self.known.contains_key(origin) {
            return None;
        }
        let now = Peer::new(&message.key, *size, *root);
        let mut anchor = Anchor {
            origin: origin.clone(),
            size: *size,
            root: root.to_string(),
            key: message.key.clone(),
            note: message.checkpoint.clone().unwrap_or_default(),
            ..Anchor::default()
        };
        let Some(known) = self.known.get_mut(origin) else {
            self.known.insert(origin.clone(), now);
            return Some(anchor);
        };
        if known.key != now.key {
            let is_new = known.other_key.replace(now.key) != Some(message.key.clone());
            anchor.problem = "its key is another one".to_owned();
            return is_new.then_some(anchor);
        }
        let proof = message.proofs.iter().find(|proof| proof.since == known.size);
        let problem = match proof {
            _ if *size == known.size && *root == known.root => return None,
            _ if *size == known.size => format!("its first {size} lines were changed"),
            Some(proof) if *size > known.size => {
                if is_consistent(known.size, known.root, *size, *root, &proof.hashes) {
                    anchor.since = Some(known.size);
                    String::new()
                } else {
                    format!("its first {} lines were changed", known.size)
                }
            }
            _ if known.unproven < UNPROVEN_MAX => {
                known.unproven += 1;
                return None;
            }
            _ if *size < known.size => format!("it had {} lines before", known.size),
            _ => format!("it does not prove that its first {} lines are the same", known.size),
        };
        anchor.problem = problem;
        *known = now;
        Some(anchor)
    }
}

/// The checkpoint of a log, if the key signed it and has the name of the log.
pub(crate) fn verify(key: &str, note: &str) -> Result<Checkpoint, String> {
    let key: VerificationKey = key.parse().map_err(|error| format!("invalid key: {error}"))?;
    let checkpoint = Checkpoint::open(note, &key).map_err(|error| error.to_string())?;
    if key.name() != checkpoint.origin || log_of(&checkpoint.origin).is_none() {
        return Err("the key does not have the name of the log".to_owned());
    }
    Ok(checkpoint)
}
