//! Proofs of single lines, for an auditor who does not get the log: the line, its audit path to a
//! signed checkpoint, and the lines of other logs that have recorded that checkpoint.

use std::{collections::BTreeMap, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{Checkpoint, log_of},
    event::{Anchor, Event, Record},
    files::{CHECKPOINT_FILE, file_ends},
    lines::{Line, Lines},
    merkle::{Frontier, Hash, Range, inclusion_ranges, root_of_inclusion},
    note::VerificationKey,
    read::LogFiles,
};

/// The version of the form of a bundle.
const BUNDLE_VERSION: u32 = 1;

/// Proofs of all lines about one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofBundle {
    /// The version of the form.
    pub v: u32,
    /// The request.
    pub request_id: String,
    /// Proofs of the lines that have the request's id.
    pub lines: Vec<LineProof>,
    /// Proofs of the lines of other logs that have recorded the checkpoints of `lines`.
    pub anchors: Vec<LineProof>,
    /// Lines that no checkpoint covers yet, `log#number`.
    pub unproven: Vec<String>,
}

/// The proof that a line is in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineProof {
    /// The line, without its newline.
    pub line: String,
    /// Its number in the log.
    pub seq: u64,
    /// The signed checkpoint (C2SP tlog-checkpoint).
    pub checkpoint: String,
    /// The key that signs the log, in the form of signed notes.
    pub key: String,
    /// The audit path from the line to the checkpoint's root (RFC 6962 section 2.1.1).
    pub path: Vec<Hash>,
}

/// A proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the line number {seq}: {problem}")]
pub struct ProofError {
    /// The number of the line.
    pub seq: u64,
    /// What is wrong.
    pub problem: String,
}

impl LineProof {
    /// Verifies the proof, and returns the record and the checkpoint. With `keys`, the log must be
    /// signed by one of them; otherwise by the key that the proof names.
    ///
    /// # Errors
    /// When the proof does not hold.
    pub fn verify(&self, keys: &[VerificationKey]) -> Result<(Record, Checkpoint), ProofError> {
        let wrong = |problem: String| ProofError { seq: self.seq, problem };
        let key: VerificationKey =
            self.key.parse().map_err(|error| wrong(format!("its key: {error}")))?;
        if !keys.is_empty() && !keys.iter().any(|trusted| trusted.is_same_key(&key)) {
            return Err(wrong(format!("the log is signed by another key: {}", self.key)));
        }
        let checkpoint = Checkpoint::open(&self.checkpoint, &key)
            .map_err(|error| wrong(format!("its checkpoint: {error}")))?;
        let leaf = Hash::of_leaf(self.line.as_bytes());
        if root_of_inclusion(leaf, self.seq, checkpoint.size, &self.path) != Some(checkpoint.root) {
            return Err(wrong("the line is not in the log that the checkpoint is of".to_owned()));
        }
        let record: Record = serde_json::from_str(&self.line)
            .map_err(|_| wrong("the line is not a record".to_owned()))?;
        if record.seq != self.seq || log_of(&checkpoint.origin) != Some(&record.log) {
            return Err(wrong("the line is one of another log or place".to_owned()));
        }
        Ok((record, checkpoint))
    }
}

/// A line to prove, with the checkpoint that covers it.
#[derive(Clone, Debug)]
struct Wanted {
    seq: u64,
    line: String,
    checkpoint: Option<(Checkpoint, String)>,
}

/// Makes the proofs of all lines with the id of a request, in files and folders.
///
/// # Errors
/// When a file cannot be read.
pub fn prove(paths: &[PathBuf], request_id: &str) -> io::Result<ProofBundle> {
    let logs = LogFiles::find(paths)?;
    let anchors = anchors(&logs)?;
    let (mut lines, mut unproven, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for log in &logs {
        let is_wanted = |record: &Record| record.event.request_id() == Some(request_id);
        let mut wanted = find(log, request_id.as_bytes(), is_wanted)?;
        for wanted in &mut wanted {
            let covering = anchors.get(&log.log).into_iter().flatten();
            let covering = covering.filter(|(checkpoint, _)| checkpoint.size > wanted.seq);
            if let Some((checkpoint, anchor)) = covering.min_by_key(|(at, _)| at.size) {
                wanted.checkpoint = Some((checkpoint.clone(), anchor.note.clone()));
                used.push(anchor.note.clone());
            }
        }
        prove_lines(log, wanted, &mut lines, &mut unproven)?;
    }
    let mut proven = Vec::new();
    for log in logs.iter().filter(|_| !used.is_empty()) {
        let is_wanted = |record: &Record| match &record.event {
            Event::Anchor(anchor) => used.contains(&anchor.note),
            _ => false,
        };
        let wanted = find(log, br#""event":"anchor""#, is_wanted)?;
        prove_lines(log, wanted, &mut proven, &mut Vec::new())?;
    }
    let request_id = request_id.to_owned();
    Ok(ProofBundle { v: BUNDLE_VERSION, request_id, lines, anchors: proven, unproven })
}

/// What other logs have recorded of each log.
fn anchors(logs: &[LogFiles]) -> io::Result<BTreeMap<String, Vec<(Checkpoint, Anchor)>>> {
    let mut anchors: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for log in logs {
        for wanted in find(log, br#""event":"anchor""#, |_| true)? {
            let Ok(record) = serde_json::from_str::<Record>(&wanted.line) else { continue };
            let Event::Anchor(anchor) = record.event else { continue };
            let Some(checkpoint) = Checkpoint::peek(&anchor.note) else { continue };
            if let Some(of) = log_of(&checkpoint.origin).map(str::to_owned) {
                anchors.entry(of).or_default().push((checkpoint, *anchor));
            }
        }
    }
    Ok(anchors)
}

/// The lines that have these bytes, and whose record is wanted.
fn find(
    log: &LogFiles,
    bytes: &[u8],
    is_wanted: impl Fn(&Record) -> bool,
) -> io::Result<Vec<Wanted>> {
    let (mut found, finder) = (Vec::new(), memchr::memmem::Finder::new(bytes));
    for_each_line(log, |seq, line| {
        if finder.find(&line.bytes).is_some()
            && serde_json::from_slice::<Record>(&line.bytes).is_ok_and(|it| is_wanted(&it))
        {
            let line = String::from_utf8_lossy(&line.bytes).into_owned();
            found.push(Wanted { seq, line, checkpoint: None });
        }
    })?;
    Ok(found)
}

/// The complete lines of a log with their numbers.
fn for_each_line(log: &LogFiles, mut each: impl FnMut(u64, &Line)) -> io::Result<()> {
    for (first, path) in &log.files {
        for line in Lines::open(path)? {
            let line = line?;
            if line.is_complete {
                each(first + line.number - 1, &line);
            }
        }
    }
    Ok(())
}

/// Proves lines of one log.
fn prove_lines(
    log: &LogFiles,
    mut wanted: Vec<Wanted>,
    proofs: &mut Vec<LineProof>,
    unproven: &mut Vec<String>,
) -> io::Result<()> {
    let Some(key) = log.key()?.filter(|_| !wanted.is_empty()) else { return Ok(()) };
    add_checkpoints(log, &mut wanted)?;
    let mut paths = Vec::new();
    let base = base(log)?;
    for Wanted { seq, line, checkpoint } in wanted {
        match checkpoint {
            None => unproven.push(format!("{}#{seq}", log.log)),
            Some((checkpoint, note)) => {
                let ranges = inclusion_ranges(seq, checkpoint.size);
                let ranges = ranges.into_iter().map(|range| RangeRoot::new(range, &base)).collect();
                paths.push((
                    LineProof { line, seq, checkpoint: note, key: key.clone(), path: Vec::new() },
                    ranges,
                ));
            }
        }
    }
    for_each_line(log, |seq, line| {
        let leaf = Hash::of_leaf(&line.bytes);
        let ranges = paths.iter_mut().flat_map(|(_, ranges): &mut (_, Vec<RangeRoot>)| ranges);
        ranges.for_each(|range| range.push(seq, leaf));
    })?;
    proofs.extend(paths.into_iter().map(|(proof, ranges)| LineProof {
        path: ranges.iter().map(|range| range.root.root()).collect(),
        ..proof
    }));
    Ok(())
}

/// Gives each line without a checkpoint the first one that covers it.
fn add_checkpoints(log: &LogFiles, wanted: &mut [Wanted]) -> io::Result<()> {
    let mut offer = |note: String| {
        let Some(checkpoint) = Checkpoint::peek(&note) else { return };
        for wanted in wanted.iter_mut() {
            if wanted.checkpoint.is_none() && wanted.seq < checkpoint.size {
                wanted.checkpoint = Some((checkpoint.clone(), note.clone()));
            }
        }
    };
    let finder = memchr::memmem::Finder::new(br#""event":"checkpoint""#);
    for_each_line(log, |_, line| {
        if finder.find(&line.bytes).is_some()
            && let Ok(Record { event: Event::Checkpoint(checkpoint), .. }) =
                serde_json::from_slice(&line.bytes)
        {
            offer(checkpoint.note);
        }
    })?;
    let latest = log.folder().map(|folder| std::fs::read_to_string(folder.join(CHECKPOINT_FILE)));
    if let Some(Ok(note)) = latest {
        offer(note);
    }
    Ok(())
}

/// The tree of the lines before the first one that is there.
fn base(log: &LogFiles) -> io::Result<Frontier> {
    let first = log.files.first().map_or(0, |(first, _)| *first);
    let Some(folder) = log.folder().filter(|_| first > 0) else { return Ok(Frontier::default()) };
    let ends = file_ends(folder)?.into_iter().filter_map(|(_, end)| end.ok());
    Ok(ends.filter(|end| end.size == first).map(|end| end.frontier).next().unwrap_or_default())
}

/// The root of a range of leaves, which come one by one.
struct RangeRoot {
    range: Range,
    root: Frontier,
}

impl RangeRoot {
    /// The root of a range, with what of it was deleted.
    fn new(range: Range, base: &Frontier) -> Self {
        let mut root = Frontier::default();
        for (first, level, hash) in base.subtrees() {
            if range.0 <= first && first + (1 << level) <= range.1 {
                root.push_subtree(level, hash);
            }
        }
        Self { range, root }
    }

    fn push(&mut self, seq: u64, leaf: Hash) {
        if (self.range.0..self.range.1).contains(&seq) {
            self.root.push(leaf);
        }
    }
}
