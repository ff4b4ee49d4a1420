//! Reading audit logs: files of lines, in the order in which they were written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    event::{Event, Record},
    files::{CHECKPOINTS_FILE, file_ends, parse_name},
    lines::{Line, Lines, named},
};

/// The files of one log, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// The name of the log: the field `log` of its lines.
    pub log: String,
    /// Each file with the number of its first line in the log.
    pub files: Vec<(u64, PathBuf)>,
}

impl LogFiles {
    /// Finds the logs in files, and in folders with everything below them.
    ///
    /// # Errors
    /// When a file or folder cannot be read, or the first line of a file is not a record.
    pub fn find(paths: &[PathBuf]) -> io::Result<Vec<Self>> {
        let mut files = Vec::new();
        for path in paths {
            collect(path, &mut files)?;
        }
        files.sort_unstable();
        files.dedup();
        let mut logs: BTreeMap<String, Vec<(u64, PathBuf)>> = BTreeMap::new();
        let mut begun = BTreeSet::new();
        for path in files {
            let first = Lines::open(&path)?.next().transpose()?;
            // The folder names the log and the file its first line, whatever the line says. Copies
            // may have other names.
            let by_line = || {
                let record = serde_json::from_slice::<Record>(&first.as_ref()?.bytes).ok()?;
                Some((record.log, record.seq))
            };
            match identify(&path).or_else(by_line) {
                // A file without lines is one of the log: it may have had some.
                Some((log, seq)) => {
                    if first.is_some() {
                        begun.insert(log.clone());
                    }
                    logs.entry(log).or_default().push((seq, path));
                }
                None if first.is_none() => {}
                None => return Err(not_a_record(&path, 1)),
            }
        }
        logs.retain(|log, _| begun.contains(log));
        for files in logs.values_mut() {
            files.sort_unstable();
        }
        Ok(logs.into_iter().map(|(log, files)| Self { log, files }).collect())
    }

    /// The folder of the log.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.files.first()?.1.parent()
    }

    /// The key that signs the checkpoints of the log, as its lines name it.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn key(&self) -> io::Result<Option<String>> {
        for (_, path) in &self.files {
            for line in Lines::open(path)? {
                let line = line?;
                match serde_json::from_slice::<Record>(&line.bytes).map(|record| record.event) {
                    Ok(Event::Start(start)) => return Ok(Some(start.key)),
                    Ok(Event::Checkpoint(checkpoint)) => return Ok(Some(checkpoint.key)),
                    _ => {}
                }
            }
        }
        // A file that has just begun has none of them; the one before may be deleted.
        let ends = self.folder().map(file_ends).transpose()?.unwrap_or_default();
        Ok(ends.into_iter().rev().find_map(|(_, end)| Some(end.ok()?.key)))
    }
}

/// What a file should have, by its name and that of its folder.
fn identify(path: &Path) -> Option<(String, u64)> {
    let (_, first) = parse_name(path)?;
    let name = path.parent()?.file_name()?.to_str()?;
    let (service, rest) = name.split_once('.')?;
    let (replica, start) = rest.rsplit_once('.')?;
    let is_start = start.len() == 19 && start.ends_with('Z') && start.as_bytes()[8] == b'T';
    if !is_start {
        return None;
    }
    Some((format!("{service}/{replica}/{start}"), first))
}

fn not_a_record(path: &Path, line: u64) -> io::Error {
    let problem = format!("{}:{line}: not a record of an audit log", path.display());
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(path).map_err(|error| named(path, &error))?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| named(path, &error))? {
        let entry = entry?;
        let path = entry.path();
        let is_lines = path.extension().is_some_and(|extension| extension == "jsonl");
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if is_lines && path.file_name().is_none_or(|name| name != CHECKPOINTS_FILE) {
            files.push(path);
        }
    }
    Ok(())
}

/// A record, or an incomplete last line, with its place.
#[derive(Clone, Debug)]
pub enum Item {
    /// A record.
    Record(Box<Record>),
    /// The last line of a file is incomplete: it is being written, or the process was killed.
    Torn {
        /// The file and line.
        place: String,
    },
}

/// All records in files, and in folders with everything below them, log by log. A torn last line is
/// an item of its own, so that a reader can name it and go on.
///
/// # Errors
/// When a file or folder cannot be read. An item is an error when a line is not a record.
pub fn records(paths: &[PathBuf]) -> io::Result<impl Iterator<Item = io::Result<Item>> + use<>> {
    let logs = LogFiles::find(paths)?;
    let files = logs.into_iter().flat_map(|log| log.files);
    Ok(files.flat_map(|(_, path)| match Lines::open(&path) {
        Ok(lines) => Box::new(lines.map(move |line| item(&path, &line?)))
            as Box<dyn Iterator<Item = io::Result<Item>>>,
        Err(error) => Box::new(std::iter::once(Err(error))),
    }))
}

fn item(path: &Path, line: &Line) -> io::Result<Item> {
    match serde_json::from_slice(&line.bytes) {
        Ok(record) => Ok(Item::Record(record)),
        Err(_) if !line.is_complete => {
            Ok(Item::Torn { place: format!("{}:{}", path.display(), line.number) })
        }
        Err(_) => Err(not_a_record(path, line.number)),
    }
}
