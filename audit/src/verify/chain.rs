//! The chain of a log: each line has its number and the hash of the line before.

use crate::{
    event::{Event, Record},
    lines::{FIRST_PREV, line_hash},
};

/// The state of the chain at a line.
#[derive(Debug, Default)]
pub(super) struct Chain {
    log: String,
    /// The number of the next line.
    next: u64,
    /// The hash of the last line. Absent: unknown, because earlier lines were deleted.
    prev: Option<String>,
    /// The place of the last line.
    last: String,
    /// Two places: the second one's `prev` is not the hash of the first one. The line after the
    /// second one shows which of them was changed.
    doubtful: Option<(String, String)>,
}

/// A problem and its place.
pub(super) type Found = (String, String);

impl Chain {
    /// The chain of the lines from `first` on, the first of which has `prev`.
    pub(super) fn new(log: &str, first: u64, prev: Option<String>) -> Self {
        let prev = if first == 0 { Some(FIRST_PREV.to_owned()) } else { prev };
        Self { log: log.to_owned(), next: first, prev, ..Self::default() }
    }

    /// The number of the next line.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The hash of the last line.
    pub(super) fn prev(&self) -> Option<&str> {
        self.prev.as_deref()
    }

    /// Checks a line, which is not a record if that is absent.
    pub(super) fn line(
        &mut self,
        place: String,
        line: &[u8],
        record: Option<&Record>,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        let hash = line_hash(line);
        match record {
            None => {
                found.extend(self.resolve(None));
                found.push((place.clone(), "not a record: the line was changed".to_owned()));
                self.next += 1;
            }
            Some(record) => {
                found.extend(self.resolve(Some(&record.prev)));
                let problem = self.check(&place, record);
                found.extend(problem.map(|problem| (place.clone(), problem)));
                self.next = record.seq + 1;
            }
        }
        self.prev = Some(hash);
        self.last = place;
        found
    }

    /// The end of the log.
    pub(super) fn finish(&mut self) -> Option<Found> {
        let (before, place) = self.doubtful.take()?;
        Some((before, format!("this line or the next one ({place}) was changed")))
    }

    fn check(&mut self, place: &str, record: &Record) -> Option<String> {
        let Record { log, seq, prev, event, .. } = record;
        if *log != self.log {
            return Some(format!("a line of the log {log}"));
        }
        if *event == Event::Unknown && record.v <= crate::event::FORMAT_VERSION {
            return Some("an unknown event: the line was changed".to_owned());
        }
        let is_linked = self.prev.as_ref().is_none_or(|expected| expected == prev);
        if *seq > self.next {
            let missing = seq - self.next;
            let lines = if missing == 1 { "1 line is" } else { &format!("{missing} lines are") };
            return Some(format!(
                "{lines} missing before this one (numbers {}…{})",
                self.next,
                seq - 1
            ));
        }
        if *seq < self.next {
            return Some(format!(
                "the line number {seq} is not the {} that is expected: a line was added, moved or \
                 changed",
                self.next
            ));
        }
        if !is_linked {
            if self.last.is_empty() {
                return Some("its `prev` is not the hash of the line before: changed".to_owned());
            }
            self.doubtful = Some((self.last.clone(), place.to_owned()));
        }
        None
    }

    /// Which of two lines was changed: the second one, if the line after it has another hash too.
    fn resolve(&mut self, prev: Option<&String>) -> Option<Found> {
        let (before, place) = self.doubtful.take()?;
        if prev.is_some() && prev == self.prev.as_ref() {
            let problem = format!("the line was changed: its hash is not the one in {place}");
            return Some((before, problem));
        }
        Some((place, "the line was changed: neither its `prev` nor its hash fit".to_owned()))
    }
}
