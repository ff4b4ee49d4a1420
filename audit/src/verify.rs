//! Verification of logs: the chain, the Merkle tree, the signed checkpoints, and what other replicas
//! have recorded of them.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::{log::LogVerifier, received::checkpoints_in};
use crate::{
    checkpoint::{Checkpoint, log_of},
    event::{Anchor, Event, Record},
    lines::Lines,
    merkle::Hash,
    note::VerificationKey,
    read::LogFiles,
};

mod chain;
mod log;
mod received;
mod sides;

/// Something in a log is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, with the number of the line from 1.
    pub place: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.problem)
    }
}

/// A replica, or a receiver, that has recorded the state of a log, which is as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Voucher {
    /// The log with the record, or the file of a receiver.
    pub log: String,
    /// The first lines of the verified log that it vouches for.
    pub size: u64,
    /// When it was recorded.
    pub time: String,
}

/// The result for one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// The log.
    pub log: String,
    /// The number of the first line that is there. Earlier ones were deleted.
    pub first: u64,
    /// The number of lines, with deleted ones.
    pub size: u64,
    /// The times of the first and the last line.
    pub times: Option<(String, String)>,
    /// The key that signs its checkpoints.
    pub key: Option<String>,
    /// How many checkpoints verify.
    pub checkpoints: u64,
    /// The first lines that a checkpoint covers.
    pub signed: u64,
    /// The latest record of each other replica.
    pub vouchers: Vec<Voucher>,
    /// Events that could not be recorded.
    pub lost: u64,
    /// Things to know that are not wrong.
    pub notes: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// An anchor with its place.
#[derive(Clone, Debug)]
struct PlacedAnchor {
    log: String,
    place: String,
    time: String,
    anchor: Anchor,
}

/// Verifies all logs in files and folders. With `keys`, each log must be signed by one of them;
/// otherwise the key is the one that the log itself names. `progress` is called with the bytes that
/// were read.
///
/// # Errors
/// When a file or folder cannot be read, or there is no log.
pub fn verify(
    paths: &[PathBuf],
    keys: &[VerificationKey],
    progress: impl FnMut(u64),
) -> io::Result<Vec<LogReport>> {
    verify_with(paths, &[], keys, progress)
}

/// As [`verify`], and compares the logs with the checkpoints in `received`: files of lines that a
/// receiver outside of the mesh has stored, where those who can write the logs cannot write.
///
/// # Errors
/// As [`verify`], and when such a file cannot be read.
pub fn verify_with(
    paths: &[PathBuf],
    received: &[PathBuf],
    keys: &[VerificationKey],
    mut progress: impl FnMut(u64),
) -> io::Result<Vec<LogReport>> {
    let logs = LogFiles::find(paths)?;
    let mut all = checkpoints_in(received)?;
    for log in &logs {
        all.extend(anchors_in(log)?);
    }
    let mut anchors: BTreeMap<String, Vec<PlacedAnchor>> = BTreeMap::new();
    for anchor in all {
        if let Some(of) = log_of(&anchor.anchor.origin) {
            anchors.entry(of.to_owned()).or_default().push(anchor);
        }
    }
    let mut verifiers = BTreeMap::new();
    for log in &logs {
        let of_log = anchors.remove(&log.log).unwrap_or_default();
        verifiers.insert(log.log.clone(), LogVerifier::new(log, &of_log, keys)?);
    }
    let mut reports = Vec::new();
    // A log that is being written may have new files, with lines that are signed already.
    for log in LogFiles::find(paths)? {
        let Some(mut verifier) = verifiers.remove(&log.log) else { continue };
        for (first, path) in &log.files {
            verifier.begin_file(*first, path);
            for line in Lines::open(path)? {
                let line = line?;
                progress(line.bytes.len() as u64 + 1);
                verifier.line(path, &line);
            }
        }
        reports.push(verifier.finish());
    }
    Ok(reports)
}

/// The anchors of other logs in this one.
fn anchors_in(log: &LogFiles) -> io::Result<Vec<PlacedAnchor>> {
    let mut anchors = Vec::new();
    let finder = memchr::memmem::Finder::new(br#""event":"anchor""#);
    for (_, path) in &log.files {
        for line in Lines::open(path)? {
            let line = line?;
            if finder.find(&line.bytes).is_none() {
                continue;
            }
            // A line that is no record is a problem of its own log.
            let Ok(record) = serde_json::from_slice::<Record>(&line.bytes) else { continue };
            if let Event::Anchor(anchor) = record.event {
                let place = place(path, line.number);
                let (log, time) = (record.log, record.time);
                anchors.push(PlacedAnchor { log, place, time, anchor: *anchor });
            }
        }
    }
    Ok(anchors)
}

fn place(path: &Path, line: u64) -> String {
    format!("{}:{line}", path.display())
}

/// What the root of the first lines of a log must be.
#[derive(Clone, Debug)]
struct Expectation {
    root: Hash,
    source: Source,
}

/// Where an expected root comes from.
#[derive(Clone, Debug)]
enum Source {
    /// A record of another log.
    Anchor { log: String, place: String, time: String },
    /// A signed file beside the log.
    Side(String),
}

/// The root that another replica recorded, if what it recorded is signed by the log's key.
fn expectation(placed: &PlacedAnchor, key: &str) -> Result<(u64, Expectation), String> {
    let PlacedAnchor { log, place, time, anchor } = placed;
    if anchor.key != key {
        return Err(format!(
            "{log} recorded the key {} at {time} ({place}), but the log has another one",
            anchor.key
        ));
    }
    let invalid = |problem: &dyn fmt::Display| format!("the anchor at {place}: {problem}");
    let parsed: VerificationKey = key.parse().map_err(|error| invalid(&error))?;
    let checkpoint = Checkpoint::open(&anchor.note, &parsed).map_err(|error| invalid(&error))?;
    let root = Hash::parse(&anchor.root).filter(|root| *root == checkpoint.root);
    let root = root.filter(|_| anchor.size == checkpoint.size);
    let root = root.ok_or_else(|| invalid(&"its size and root are not those of its note"))?;
    let source = Source::Anchor { log: log.clone(), place: place.clone(), time: time.clone() };
    Ok((checkpoint.size, Expectation { root, source }))
}

#[cfg(test)]
mod tests;
