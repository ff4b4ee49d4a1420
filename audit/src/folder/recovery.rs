//! What a log continues with after a restart.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use jiff::civil::Date;
use sha2::{Digest as _, Sha256};

use super::sync_folder;
use crate::{
    event::{Anchor, Event, Record, Torn},
    files::line_files,
    lines::{FIRST_PREV, Line, Lines, line_hash},
    merkle::Hash,
    tree::{Tree, private},
};

/// The state of a log at its end.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The day and the first line of the last file. Absent: there is no line yet.
    pub(crate) file: Option<(Date, u64)>,
    /// The hash of the last line.
    pub(crate) prev: String,
    /// Whether the service had stopped.
    pub(crate) after_stop: bool,
    /// An incomplete last line that was moved away.
    pub(crate) torn: Option<Torn>,
    /// The latest anchors of other logs.
    pub(crate) anchors: Vec<Anchor>,
    /// The key that signs its checkpoints. Absent: no line of the last file has it.
    pub(crate) key: Option<String>,
}

/// A log cannot be continued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    /// Another process writes it.
    #[error("another process writes it")]
    InUse,
    /// Its checkpoints are signed by another key, or name another mesh.
    #[error("its checkpoints have another key or name another mesh")]
    OtherKey,
    /// A line is not the one that was written.
    #[error("{0}")]
    Line(String),
    /// Its files cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the last file of a log. An incomplete last line is moved to a file of its own.
pub(super) fn recover(folder: &Path, log: &str) -> Result<(Recovered, Tree), Damage> {
    let mut files = line_files(folder)?;
    let retained = files.first().map_or(0, |(first, ..)| *first);
    let mut torn = None;
    while let Some((first, day, path)) = files.pop() {
        let tail = read_tail(&path, first, log)?;
        if let Some(from) = tail.torn_from {
            torn = Some(move_away(&path, from)?);
        }
        let Some(prev) = tail.prev else {
            // A file without a line, from a crash. The hash of the last line is in the one before.
            fs::remove_file(&path)?;
            continue;
        };
        let mut tree = Tree::open(folder, first)?;
        tree.forget_leaves(retained);
        tail.leaves.into_iter().for_each(|leaf| tree.push(leaf));
        let recovered = Recovered {
            file: Some((day, first)),
            prev,
            after_stop: tail.after_stop,
            torn,
            anchors: tail.anchors,
            key: tail.key,
        };
        return Ok((recovered, tree));
    }
    let prev = FIRST_PREV.to_owned();
    let recovered =
        Recovered { file: None, prev, after_stop: false, torn, anchors: Vec::new(), key: None };
    if retained > 0 {
        return Err(Damage::Line("its files have no line".to_owned()));
    }
    Ok((recovered, Tree::open(folder, 0)?))
}

/// The lines of the last file.
#[derive(Default)]
struct Tail {
    leaves: Vec<Hash>,
    /// The hash of the last line. Absent: there is no line.
    prev: Option<String>,
    /// Where an incomplete last line begins.
    torn_from: Option<u64>,
    /// Whether the last event that is not of the log itself is a stop.
    after_stop: bool,
    anchors: Vec<Anchor>,
    key: Option<String>,
}

impl Tail {
    fn note(&mut self, event: Event) {
        match event {
            Event::Stop(_) => self.after_stop = true,
            Event::Checkpoint(checkpoint) => self.key = Some(checkpoint.key),
            Event::Anchor(anchor) => self.anchors.push(*anchor),
            Event::Start(start) => (self.key, self.after_stop) = (Some(start.key), false),
            _ => self.after_stop = false,
        }
    }
}

fn read_tail(path: &Path, first: u64, log: &str) -> Result<Tail, Damage> {
    let mut tail = Tail::default();
    let mut offset = 0;
    for line in Lines::open(path)? {
        let line = line?;
        let place = format!("{}:{}", path.display(), line.number);
        let begin = offset;
        offset += line.bytes.len() as u64 + u64::from(line.is_complete);
        let record = serde_json::from_slice::<Record>(&line.bytes).ok();
        match (record, tail.torn_from) {
            (Some(record), None) if line.is_complete => {
                check(&record, &line, &tail, first, log)
                    .map_err(|problem| Damage::Line(format!("{place}: {problem}")))?;
                tail.note(record.event);
            }
            // What follows it may be zeros, after a power loss, but no line.
            (None, _) | (Some(_), None) => {
                tail.torn_from.get_or_insert(begin);
            }
            (Some(_), Some(_)) => {
                return Err(Damage::Line(format!("{place}: a line before it is not a record")));
            }
        }
        if tail.torn_from.is_none() {
            tail.leaves.push(Hash::of_leaf(&line.bytes));
            tail.prev = Some(line_hash(&line.bytes));
        }
    }
    Ok(tail)
}

fn check(record: &Record, line: &Line, tail: &Tail, first: u64, log: &str) -> Result<(), String> {
    let expected = first + line.number - 1;
    if record.log != log {
        return Err(format!("a line of the log {}", record.log));
    }
    if record.seq != expected {
        return Err(format!("`seq` is {}, expected {expected}", record.seq));
    }
    match &tail.prev {
        Some(prev) if *prev != record.prev => {
            Err("`prev` is not the hash of the line before".to_owned())
        }
        _ => Ok(()),
    }
}

/// Moves the end of a file into a file of its own.
fn move_away(path: &Path, from: u64) -> io::Result<Torn> {
    let bytes = fs::read(path)?;
    let rest = bytes.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
    let torn = free_name(path);
    let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&torn)?;
    file.write_all(rest)?;
    file.sync_all()?;
    let lines = OpenOptions::new().write(true).open(path)?;
    lines.set_len(from)?;
    lines.sync_all()?;
    if let Some(folder) = path.parent() {
        sync_folder(folder)?;
    }
    Ok(Torn {
        file: torn.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: rest.len() as u64,
        sha256: HEXLOWER.encode(&Sha256::digest(rest)),
    })
}

/// `<file>.torn`, or with a number before it if that exists.
fn free_name(path: &Path) -> PathBuf {
    let name = |number: u32| match number {
        0 => path.with_added_extension("torn"),
        _ => path.with_added_extension(format!("{number}.torn")),
    };
    let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    (0..).map(name).find(is_free).unwrap_or_else(|| name(0))
}
