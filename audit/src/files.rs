//! The names of the files of a log, and what is beside the lines.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::{lines::Lines, merkle::Frontier};

/// The file of the latest signed checkpoint.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";
/// The file with the state of the log at the end of each file of lines.
pub(crate) const CHECKPOINTS_FILE: &str = "checkpoints.jsonl";
pub(crate) const LINES_SUFFIX: &str = "jsonl";

/// The state of a log at the end of a file of lines. It remains when the file is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEnd {
    /// The name of the file.
    pub(crate) file: String,
    /// The number of lines of the log until its end.
    pub(crate) size: u64,
    /// The hash of its last line, which the first line of the next file has as `prev`.
    pub(crate) prev: String,
    /// The complete subtrees of its lines and of all before.
    pub(crate) frontier: Frontier,
    /// The key that signed their checkpoint, in the form of signed notes.
    pub(crate) key: String,
    /// The signed checkpoint of them.
    pub(crate) note: String,
}

/// The day and the number of the first line of a file of lines, `<day>.<number>.jsonl`.
pub(crate) fn parse_name(path: &Path) -> Option<(Date, u64)> {
    if path.extension() != Some(OsStr::new(LINES_SUFFIX)) {
        return None;
    }
    let (day, first) = path.file_stem()?.to_str()?.split_once('.')?;
    Some((day.parse().ok()?, first.parse().ok()?))
}

/// The files of lines in a folder with the numbers of their first lines, in their order.
pub(crate) fn line_files(folder: &Path) -> io::Result<Vec<(u64, Date, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        files.extend(parse_name(&path).map(|(day, first)| (first, day, path)));
    }
    files.sort_unstable();
    Ok(files)
}

/// The states of a log at the ends of its files, with their places.
pub(crate) fn file_ends(folder: &Path) -> io::Result<Vec<(String, Result<FileEnd, String>)>> {
    let path = folder.join(CHECKPOINTS_FILE);
    if fs::symlink_metadata(&path).is_err() {
        return Ok(Vec::new());
    }
    let mut ends = Vec::new();
    for line in Lines::open(&path)? {
        let line = line?;
        let place = format!("{}:{}", path.display(), line.number);
        let end = serde_json::from_slice::<FileEnd>(&line.bytes).map_err(|_| ());
        let end = end.and_then(|end| end.frontier.is_valid().then_some(end).ok_or(()));
        match end {
            // It is being written, or the process was killed.
            Err(()) if !line.is_complete => {}
            end => ends.push((place, end.map_err(|()| "not the state of a log".to_owned()))),
        }
    }
    Ok(ends)
}
