//! The lines of a log that a sink has not received, read from its files.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    files::line_files,
    lines::{Lines, RecordHead},
};

/// The most lines of one batch.
const BATCH_LINES_MAX: u64 = 1_000;
/// About the most bytes of one batch. A longer line is a batch of its own.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// After how many batches in a row smaller ones grow again.
const BATCHES_BEFORE_GROWTH: u32 = 64;

/// Lines in their order, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// The number of the first of them in its log.
    pub(super) first: u64,
    /// Without newlines.
    pub(super) lines: Vec<Vec<u8>>,
    /// How many lines before the first one were deleted before they were sent.
    pub(super) deleted: u64,
}

impl Batch {
    /// The number of the line after the last one.
    pub(super) fn next(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    /// When the first event happened.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let head = serde_json::from_slice::<RecordHead<'_>>(self.lines.first()?).ok()?;
        head.time.parse().ok()
    }
}

/// Reads the lines of a log one after the other.
#[derive(Debug)]
pub(super) struct Backlog {
    folder: PathBuf,
    /// The number of the next line.
    next: u64,
    /// The open file, with the number of its first line.
    open: Option<(u64, Lines)>,
    /// A line that did not fit into the last batch.
    ahead: Option<Vec<u8>>,
    /// About the most bytes of the next batch.
    bytes_max: usize,
    /// Batches since that changed.
    batches: u32,
}

impl Backlog {
    /// Begins with the line of this number.
    pub(super) fn new(folder: &Path, next: u64) -> Self {
        let folder = folder.to_owned();
        Self { folder, next, open: None, ahead: None, bytes_max: BATCH_BYTES_MAX, batches: 0 }
    }

    /// Reads this batch again, in smaller ones: it was too large for its receiver. Returns whether
    /// it can be divided.
    pub(super) fn divide(&mut self, batch: &Batch) -> bool {
        let bytes: usize = batch.lines.iter().map(|line| line.len() + 1).sum();
        (self.next, self.open, self.ahead) = (batch.first, None, None);
        (self.bytes_max, self.batches) = (bytes / 2, 0);
        batch.lines.len() > 1
    }

    /// The number of lines of a log that no process writes: its complete ones.
    pub(super) fn size(folder: &Path) -> io::Result<u64> {
        let Some((first, _, path)) = line_files(folder)?.pop() else { return Ok(0) };
        let mut size = first;
        for line in Lines::open(&path)? {
            size += u64::from(line?.is_complete);
        }
        Ok(size)
    }

    /// The next batch of the first `size` lines of the log. Empty: there are no more.
    pub(super) fn read(&mut self, size: u64) -> io::Result<Batch> {
        let mut batch = Batch { first: self.next, ..Batch::default() };
        let mut bytes = 0;
        self.batches += 1;
        if self.batches > BATCHES_BEFORE_GROWTH {
            (self.bytes_max, self.batches) = ((self.bytes_max * 2).min(BATCH_BYTES_MAX), 0);
        }
        while self.next < size && (batch.lines.len() as u64) < BATCH_LINES_MAX {
            let line = match self.ahead.take() {
                Some(line) => line,
                None => match self.line(&mut batch)? {
                    Some(line) => line,
                    None => break,
                },
            };
            if !batch.lines.is_empty() && bytes + line.len() > self.bytes_max {
                self.ahead = Some(line);
                break;
            }
            bytes += line.len() + 1;
            batch.lines.push(line);
            self.next += 1;
        }
        Ok(batch)
    }

    /// The line with the number `next`, from the open file or the one after it.
    fn line(&mut self, batch: &mut Batch) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some((_, lines)) = &mut self.open
                && let Some(line) = lines.next().transpose()?
            {
                if line.is_complete {
                    return Ok(Some(line.bytes));
                }
                // What is durable is complete: the line was moved away after a power loss.
                self.open = None;
                return Ok(None);
            }
            if !self.open_file(batch)? {
                return Ok(None);
            }
        }
    }

    /// Opens the file with the line `next`. Returns whether it is another one than before.
    fn open_file(&mut self, batch: &mut Batch) -> io::Result<bool> {
        let files = line_files(&self.folder)?;
        let holds = |(first, ..): &&(u64, _, PathBuf)| *first <= self.next;
        let found = files.iter().rev().find(holds).or(files.first());
        let Some((first, _, path)) = found else { return Ok(false) };
        if self.open.as_ref().is_some_and(|(open, _)| open == first) {
            return Ok(false);
        }
        if *first > self.next {
            if !batch.lines.is_empty() {
                return Ok(false);
            }
            batch.deleted += first - self.next;
            (self.next, batch.first) = (*first, *first);
        }
        let mut lines = Lines::open(path)?;
        for _ in *first..self.next {
            lines.next().transpose()?;
        }
        self.open = Some((*first, lines));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("2026-01-01.000000000000.jsonl"), "0\n1\n2\n").unwrap();
        fs::write(folder.path().join("2026-01-01.000000000003.jsonl"), "3\n4\n").unwrap();
        folder
    }

    fn texts(batch: &Batch) -> String {
        String::from_utf8(batch.lines.concat()).unwrap()
    }

    #[test]
    fn lines_are_read_in_order_over_files_up_to_what_is_durable() {
        let folder = folder();
        assert_eq!(Backlog::size(folder.path()).unwrap(), 5);
        let mut backlog = Backlog::new(folder.path(), 1);
        let batch = backlog.read(4).unwrap();
        assert_eq!((batch.first, batch.next(), texts(&batch).as_str()), (1, 4, "123"));
        assert_eq!(texts(&backlog.read(4).unwrap()), "");
        assert_eq!(texts(&backlog.read(9).unwrap()), "4");
        // What is appended later is read later.
        fs::write(folder.path().join("2026-01-01.000000000003.jsonl"), "3\n4\n5\n").unwrap();
        fs::write(folder.path().join("2026-01-02.000000000006.jsonl"), "6\n").unwrap();
        assert_eq!(texts(&backlog.read(7).unwrap()), "56");
    }

    #[test]
    fn lines_that_were_deleted_before_they_were_sent_are_counted() {
        let folder = folder();
        fs::remove_file(folder.path().join("2026-01-01.000000000000.jsonl")).unwrap();
        let batch = Backlog::new(folder.path(), 1).read(5).unwrap();
        assert_eq!((batch.first, batch.deleted, texts(&batch).as_str()), (3, 2, "34"));
    }

    #[test]
    fn a_batch_is_bounded_and_a_long_line_is_a_batch_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(BATCH_BYTES_MAX - 1);
        let text = format!("a\n{long}\nb\n");
        fs::write(folder.path().join("2026-01-01.000000000000.jsonl"), text).unwrap();
        let mut backlog = Backlog::new(folder.path(), 0);
        let lengths: Vec<_> = (0..3)
            .map(|_| backlog.read(3).unwrap().lines.iter().map(Vec::len).collect::<Vec<_>>())
            .collect();
        assert_eq!(lengths, [vec![1], vec![BATCH_BYTES_MAX - 1], vec![1]]);
    }

    #[test]
    fn a_batch_that_is_too_large_for_its_receiver_is_read_again_in_smaller_ones() {
        let folder = folder();
        let mut backlog = Backlog::new(folder.path(), 0);
        let whole = backlog.read(5).unwrap();
        assert!(backlog.divide(&whole));
        let batches: Vec<_> = (0..3).map(|_| texts(&backlog.read(5).unwrap())).collect();
        assert_eq!(batches, ["012", "34", ""]);
        let line = Batch { first: 4, lines: vec![b"4".to_vec()], deleted: 0 };
        assert!(!backlog.divide(&line));
        assert_eq!(texts(&backlog.read(5).unwrap()), "4");
    }
}
