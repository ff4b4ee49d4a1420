//! The verification of one log, line by line.

use std::{collections::BTreeMap, io, path::Path};

use super::{
    Expectation, LogReport, PlacedAnchor, Problem, Source, Voucher,
    chain::{Chain, Found},
    expectation, place,
    sides::{check_end, latest},
};
use crate::{
    checkpoint::Checkpoint,
    event::{CheckpointRecord, Event, Gap, Record},
    files::{CHECKPOINTS_FILE, FileEnd, file_ends},
    lines::Line,
    merkle::{Frontier, Hash},
    note::VerificationKey,
    read::LogFiles,
};

/// Verifies one log.
pub(super) struct LogVerifier {
    report: LogReport,
    trusted: Vec<VerificationKey>,
    key: Option<VerificationKey>,
    chain: Chain,
    frontier: Frontier,
    /// Whether earlier lines were deleted and nothing says what their tree was.
    is_rootless: bool,
    /// The latest size at which the root was right.
    right_until: u64,
    /// Roots that the log must have at these sizes.
    expected: BTreeMap<u64, Vec<Expectation>>,
    ends: Vec<(String, FileEnd)>,
    vouchers: BTreeMap<String, Voucher>,
}

impl LogVerifier {
    /// Begins with the first line that is there.
    pub(super) fn new(
        log: &LogFiles,
        anchors: &[PlacedAnchor],
        trusted: &[VerificationKey],
    ) -> io::Result<Self> {
        let first = log.files.first().map_or(0, |(first, _)| *first);
        let mut verifier = Self {
            report: LogReport { log: log.log.clone(), first, size: first, ..LogReport::default() },
            trusted: trusted.to_vec(),
            key: None,
            chain: Chain::new(&log.log, first, None),
            frontier: Frontier::default(),
            is_rootless: first > 0,
            right_until: first,
            expected: BTreeMap::new(),
            ends: Vec::new(),
            vouchers: BTreeMap::new(),
        };
        if let Some(key) = log.key()? {
            verifier.set_key(&key, &log.files.first().map_or(String::new(), |f| place(&f.1, 1)));
        }
        if let Some(folder) = log.folder() {
            verifier.read_sides(folder)?;
        }
        verifier.read_anchors(anchors);
        Ok(verifier)
    }

    fn problem(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        self.report.problems.push(Problem { place: place.into(), problem: problem.into() });
    }

    fn problems(&mut self, found: impl IntoIterator<Item = Found>) {
        found.into_iter().for_each(|(place, problem)| self.problem(place, problem));
    }

    fn set_key(&mut self, text: &str, place: &str) {
        match text.parse::<VerificationKey>() {
            Err(error) => self.problem(place, format!("its key: {error}")),
            Ok(key) => {
                let is_trusted = self.trusted.iter().any(|trusted| trusted.is_same_key(&key));
                if !self.trusted.is_empty() && !is_trusted {
                    self.problem(place, format!("the log is signed by another key: {text}"));
                }
                self.report.key = Some(text.to_owned());
                self.key = Some(key);
            }
        }
    }

    /// What is signed beside the lines.
    fn read_sides(&mut self, folder: &Path) -> io::Result<()> {
        let Some(key) = self.key.clone() else { return Ok(()) };
        for (place, end) in file_ends(folder)? {
            match end.and_then(|end| check_end(&end, &key).map(|()| end)) {
                Err(problem) => self.problem(place, problem),
                Ok(end) => self.add_end(place, end),
            }
        }
        if self.is_rootless {
            let problem = format!(
                "lines before number {} are missing, and their signed state is not in \
                 {CHECKPOINTS_FILE}: the service did not delete them",
                self.report.first
            );
            self.problem(folder.display().to_string(), problem);
        }
        match latest(folder, &key) {
            None => {
                let notes = "there is no latest checkpoint beside the lines";
                self.report.notes.push(notes.to_owned());
            }
            Some((place, Err(problem))) => self.problem(place, problem),
            Some((place, Ok(Checkpoint { size, root, .. }))) => {
                self.report.checkpoints += 1;
                self.expect(size, root, Source::Side(place));
            }
        }
        Ok(())
    }

    fn add_end(&mut self, place: String, end: FileEnd) {
        if end.size == self.report.first && self.is_rootless {
            self.chain = Chain::new(&self.report.log, end.size, Some(end.prev.clone()));
            self.frontier = end.frontier.clone();
            self.is_rootless = false;
            self.report.signed = end.size;
        }
        if end.size >= self.report.first {
            self.expect(end.size, end.frontier.root(), Source::Side(place.clone()));
            self.ends.push((place, end));
        }
    }

    fn read_anchors(&mut self, anchors: &[PlacedAnchor]) {
        let Some(key) = self.report.key.clone() else { return };
        for placed in anchors {
            let origin_is_other =
                self.key.as_ref().is_some_and(|k| k.name() != placed.anchor.origin);
            if origin_is_other {
                // The log of the same replica in another mesh.
                continue;
            }
            if !placed.anchor.problem.is_empty() {
                let PlacedAnchor { log, place, time, anchor } = placed;
                let problem = format!("{log} recorded at {time}: {}", anchor.problem);
                self.problem(place, problem);
                // What it recorded is the state of the changed log.
                continue;
            }
            match expectation(placed, &key) {
                Ok((size, Expectation { root, source })) => self.expect(size, root, source),
                Err(problem) => self.problem(placed.place.clone(), problem),
            }
        }
    }

    fn expect(&mut self, size: u64, root: Hash, source: Source) {
        if size >= self.report.first {
            self.expected.entry(size).or_default().push(Expectation { root, source });
        }
    }

    /// Begins a file, whose first line should have this number.
    pub(super) fn begin_file(&mut self, first: u64, path: &Path) {
        if self.report.size == self.report.first {
            self.compare(&path.display().to_string());
        }
        if first != self.chain.next() && self.report.size > self.report.first {
            let next = self.chain.next();
            let problem = format!("the file begins with the line number {first}, expected {next}");
            self.problem(path.display().to_string(), problem);
        }
    }

    /// Verifies a line.
    pub(super) fn line(&mut self, path: &Path, line: &Line) {
        let place = place(path, line.number);
        let record = serde_json::from_slice::<Record>(&line.bytes).ok();
        if !line.is_complete {
            let note = format!("{place}: an incomplete line, which is not verified");
            self.report.notes.push(note);
            return;
        }
        let found = self.chain.line(place.clone(), &line.bytes, record.as_ref());
        self.problems(found);
        if let Some(record) = record {
            self.event(&place, &record.event);
            let first =
                self.report.times.take().map_or_else(|| record.time.clone(), |(first, _)| first);
            self.report.times = Some((first, record.time));
        }
        self.frontier.push(Hash::of_leaf(&line.bytes));
        self.report.size += 1;
        self.compare(&place);
    }

    fn event(&mut self, place: &str, event: &Event) {
        match event {
            Event::Checkpoint(checkpoint) => self.checkpoint(place, checkpoint),
            Event::Start(start) if Some(&start.key) != self.report.key.as_ref() => {
                self.problem(place, "another key than that of the log before");
            }
            Event::Start(start) => {
                let torn = start
                    .torn
                    .iter()
                    .map(|torn| format!("{place}: an incomplete line was moved to {}", torn.file));
                let follows = start
                    .follows
                    .iter()
                    .map(|why| format!("{place}: the log before was not continued: {why}"));
                self.report.notes.extend(torn.chain(follows));
            }
            Event::Gap(Gap { lost, since, reason }) => {
                self.report.lost += lost;
                let note = format!("{place}: {lost} events are missing since {since}: {reason}");
                self.report.notes.push(note);
            }
            _ => {}
        }
    }

    fn checkpoint(&mut self, place: &str, record: &CheckpointRecord) {
        let Some(key) = &self.key else { return };
        let size = self.report.size;
        match Checkpoint::open(&record.note, key) {
            Err(error) => self.problem(place, format!("its checkpoint: {error}")),
            Ok(_) if Some(&record.key) != self.report.key.as_ref() => {
                self.problem(place, "another key than that of the log before");
            }
            Ok(signed) if signed.size != record.size => {
                self.problem(place, "its size is not the one that is signed");
            }
            Ok(signed) if self.is_rootless || self.is_broken() => drop(signed),
            Ok(signed) if signed.size == size && signed.root == self.frontier.root() => {
                self.report.checkpoints += 1;
                (self.right_until, self.report.signed) = (size, size);
            }
            Ok(_) => self.broken(place, "its checkpoint"),
        }
    }

    /// Whether the tree is known to differ from the signed one: later roots differ too.
    fn is_broken(&self) -> bool {
        self.right_until == u64::MAX
    }

    fn broken(&mut self, place: &str, what: &str) {
        if !self.is_broken() {
            let (from, until) = (self.right_until, self.report.size);
            let problem = format!(
                "{what} is not that of the lines: among the lines number {from}…{}, something was \
                 changed, added or removed",
                until.saturating_sub(1)
            );
            self.problem(place, problem);
            self.right_until = u64::MAX;
        }
    }

    /// Compares the root at this size with what is expected.
    fn compare(&mut self, place: &str) {
        let Some(expected) = self.expected.remove(&self.report.size) else { return };
        if self.is_rootless {
            return;
        }
        let (size, root) = (self.report.size, self.frontier.root());
        for Expectation { root: wanted, source } in expected {
            let is_right = wanted == root;
            match source {
                Source::Side(_) if is_right => {
                    self.report.signed = self.report.signed.max(size);
                    self.right_until = if self.is_broken() { u64::MAX } else { size };
                }
                Source::Side(side) => self.broken(place, &format!("the checkpoint in {side}")),
                Source::Anchor { log, time, .. } if is_right => {
                    self.right_until = if self.is_broken() { u64::MAX } else { size };
                    self.vouchers.insert(log.clone(), Voucher { log, size, time });
                }
                Source::Anchor { log, place: at, time } => {
                    let from = if self.is_broken() { 0 } else { self.right_until };
                    self.problem(place, format!(
                        "the lines number {from}…{} are not those that {log} recorded at {time} \
                         ({at}): the log was rewritten after that",
                        size.saturating_sub(1)
                    ));
                }
            }
        }
        self.check_end_of_file(size, place);
    }

    /// Whether the state at the end of a file has the hash of the last line.
    fn check_end_of_file(&mut self, size: u64, place: &str) {
        let prev = self.chain.prev().map(str::to_owned);
        let wrong = self.ends.iter().find(|(_, end)| {
            end.size == size && prev.as_ref().is_some_and(|prev| *prev != end.prev)
        });
        if let Some((side, _)) = wrong {
            let problem = format!("its hash is not the one in {side}");
            self.problem(place, problem);
        }
    }

    /// The end of the log.
    pub(super) fn finish(mut self) -> LogReport {
        let doubtful = self.chain.finish();
        self.problems(doubtful);
        let (log, size) = (self.report.log.clone(), self.report.size);
        let mut missing = BTreeMap::new();
        for (wanted, expected) in std::mem::take(&mut self.expected) {
            for Expectation { source, .. } in expected {
                let by = match source {
                    Source::Side(place) => place,
                    Source::Anchor { log, place, time } => {
                        format!("{log}, which recorded it at {time} ({place})")
                    }
                };
                missing.insert(by, wanted);
            }
        }
        // One problem for all anchors of a log.
        if let Some((by, wanted)) = missing.iter().max_by_key(|(_, wanted)| **wanted) {
            let problem = format!(
                "it ends with {size} lines, but it had {wanted} of them according to {by}: lines \
                 were removed at its end"
            );
            self.problem(log, problem);
        }
        if self.report.key.is_none() {
            self.problem(self.report.log.clone(), "no line names the key of its checkpoints");
        }
        self.report.vouchers = self.vouchers.into_values().collect();
        self.report
    }
}
