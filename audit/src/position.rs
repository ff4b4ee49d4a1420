//! How far the receiver of a sink has acknowledged a log. It is a file in the folder of the log.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use drawbridge_runtime::{bounded, private_files};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "sink.";
const SUFFIX: &str = ".json";
/// The largest file of a position, in bytes.
const POSITION_BYTES_MAX: u64 = 4096;

/// The file with the position of a sink in the log of this folder.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    path: PathBuf,
    to: String,
    is_required: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// Where the lines are sent to. A position of another receiver does not count.
    to: String,
    /// Whether lines are not deleted before they are acknowledged.
    required: bool,
    /// The number of the first line that the receiver has not acknowledged.
    next: u64,
}

impl Position {
    /// The position of the sink with this name, which sends to `to`. With `is_required`, files
    /// of lines are not deleted before they are acknowledged.
    pub(crate) fn new(folder: &Path, name: &str, to: &str, is_required: bool) -> Self {
        let path = folder.join(format!("{PREFIX}{name}{SUFFIX}"));
        Self { path, to: to.to_owned(), is_required }
    }

    /// Whether the sink has begun to send the log.
    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The number of the first line that the receiver has not acknowledged: 0 if it has none yet.
    pub(crate) fn load(&self) -> io::Result<u64> {
        match bounded::read_file(&self.path, POSITION_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
            // One that cannot be read does not count: lines are sent again, and nothing is lost.
            Ok(bytes) => Ok(serde_json::from_slice::<Stored>(&bytes)
                .ok()
                .filter(|stored| stored.to == self.to)
                .map_or(0, |stored| stored.next)),
        }
    }

    /// Stores the position durably.
    pub(crate) fn store(&self, next: u64) -> io::Result<()> {
        let stored = Stored { to: self.to.clone(), required: self.is_required, next };
        private_files::replace(&self.path, &serde_json::to_vec(&stored)?)?;
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// The files of positions in a folder, with the names of their sinks.
fn positions(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut positions = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| {
            name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX).map(str::to_owned)
        });
        positions.extend(name.map(|name| (name, path)));
    }
    Ok(positions)
}

/// The number of the first line of the log in this folder that must not be deleted yet, because a
/// receiver that is required lacks it.
pub(crate) fn required_from(folder: &Path) -> io::Result<u64> {
    let mut first = u64::MAX;
    for (_, path) in positions(folder)? {
        let stored = bounded::read_file(&path, POSITION_BYTES_MAX)?;
        // A position that cannot be read may be of such a receiver.
        first = first.min(match serde_json::from_slice::<Stored>(&stored) {
            Ok(stored) if stored.required => stored.next,
            Ok(_) => u64::MAX,
            Err(_) => 0,
        });
    }
    Ok(first)
}

/// Removes the positions of sinks without a place in `names`: they are not configured any more.
pub(crate) fn forget_others(folder: &Path, names: &[&str]) -> io::Result<()> {
    for (name, path) in positions(folder)? {
        if !names.contains(&name.as_str()) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_of_one_receiver_and_one_that_cannot_be_read_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |to| Position::new(folder.path(), "http", to, true);
        let position = at("https://siem.example/audit");
        assert_eq!(position.load().unwrap(), 0);
        position.store(7).unwrap();
        assert_eq!(position.load().unwrap(), 7);
        assert_eq!(at("https://other/").load().unwrap(), 0);
        fs::write(folder.path().join("sink.http.json"), "{\"to\":").unwrap();
        assert_eq!(position.load().unwrap(), 0);
    }

    #[test]
    fn what_a_required_receiver_lacks_must_not_be_deleted_until_it_is_not_configured_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let required = || required_from(folder.path()).unwrap();
        assert_eq!(required(), u64::MAX);
        Position::new(folder.path(), "otlp", "a", false).store(3).unwrap();
        assert_eq!(required(), u64::MAX);
        Position::new(folder.path(), "http", "b", true).store(7).unwrap();
        assert_eq!(required(), 7);
        forget_others(folder.path(), &["otlp"]).unwrap();
        assert_eq!(required(), u64::MAX);
        fs::write(folder.path().join("sink.http.json"), "").unwrap();
        assert_eq!(required(), 0);
    }
}
