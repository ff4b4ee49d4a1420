//! What the writer gets, and what it makes lines of.

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::{
    event::{Anchor, Event, Gap, Start as StartRecord},
    folder::Recovered,
    shared::{AuditUnavailable, Lost},
};

/// What the writer gets.
#[derive(Debug)]
pub(crate) enum Message {
    /// An event as JSON.
    Event {
        name: &'static str,
        time: Timestamp,
        event: Vec<u8>,
        /// Absent: no caller waits.
        done: Option<oneshot::Sender<Result<(), AuditUnavailable>>>,
    },
    /// The service stops.
    Stop(oneshot::Sender<()>),
    /// A test wants a checkpoint.
    #[cfg(test)]
    Checkpoint(oneshot::Sender<()>),
}

/// What a log begins or continues with.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) record: StartRecord,
    /// The hash of the last line.
    pub(crate) prev: String,
    pub(crate) anchors: Vec<Anchor>,
}

impl Start {
    pub(crate) fn new(recovered: Recovered) -> Self {
        let Recovered { prev, after_stop, torn, anchors, .. } = recovered;
        let record = StartRecord { after_stop, torn, ..StartRecord::default() };
        Self { record, prev, anchors }
    }
}

/// One event of a batch.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) time: Timestamp,
    pub(super) event: Vec<u8>,
    pub(super) done: Option<oneshot::Sender<Result<(), AuditUnavailable>>>,
}

pub(super) fn entry(event: &Event) -> Entry {
    // Types of this crate without maps of other keys than texts can always be written.
    let bytes = serde_json::to_vec(event).unwrap_or_default();
    Entry { name: event.name(), time: Timestamp::now(), event: bytes, done: None }
}

pub(super) fn gap(lost: &Lost) -> Entry {
    let since = lost.since.unwrap_or_else(Timestamp::now).to_string();
    entry(&Event::Gap(Gap { lost: lost.count, since, reason: lost.reason.clone() }))
}

pub(super) fn answer_all(batch: Vec<Entry>, answer: &Result<(), AuditUnavailable>) {
    for done in batch.into_iter().filter_map(|entry| entry.done) {
        // The caller may be gone.
        let _ = done.send(answer.clone());
    }
}
