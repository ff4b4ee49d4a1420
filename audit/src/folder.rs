//! The files of one log: a folder with files of lines, the hashes of the tree, and the checkpoints
//! of what was deleted.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use drawbridge_runtime::private_files;
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use self::recovery::recover;
pub(crate) use self::recovery::{Damage, Recovered};
use crate::{
    files::{CHECKPOINT_FILE, CHECKPOINTS_FILE, FileEnd, LINES_SUFFIX, line_files},
    position::required_from,
    tree::{Tree, private},
};

mod recovery;

/// The file that the process which writes a log has locked.
pub(crate) const LOCK_FILE: &str = "lock";

/// Today (UTC).
pub(crate) fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// The folder of a log that is being written.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    _lock: File,
    file: File,
    file_path: PathBuf,
    day: Date,
    /// The number of the first line of the open file.
    first: u64,
    /// The length of the open file up to the end of its last complete line.
    bytes: u64,
    /// Whether something behind `bytes` may have to be cut off.
    is_dirty: bool,
}

/// Waits until no other service opens a log below this folder: their keys are made once.
pub(crate) fn lock_root(root: &Path) -> io::Result<File> {
    let lock = private(OpenOptions::new().write(true).create(true)).open(root.join(LOCK_FILE))?;
    lock.lock()?;
    Ok(lock)
}

/// What a folder was opened with.
pub(crate) struct Opened {
    pub(crate) folder: Folder,
    pub(crate) tree: Tree,
    pub(crate) recovered: Recovered,
}

impl Folder {
    /// Opens the folder of a log, and creates it if it is missing. `log` is the name of the log.
    ///
    /// # Errors
    /// [`Damage`] when the log in it cannot be continued; it is left as it is.
    pub(crate) fn open(path: &Path, log: &str) -> Result<Opened, Damage> {
        private_files::create_folder(path)?;
        let lock =
            private(OpenOptions::new().write(true).create(true)).open(path.join(LOCK_FILE))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Damage::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let (recovered, tree) = recover(path, log)?;
        let day = recovered.file.as_ref().map_or_else(today, |(day, _)| *day);
        let first = recovered.file.as_ref().map_or(0, |(_, first)| *first);
        let file_path = path.join(file_name(day, first));
        let file = open_lines(&file_path)?;
        let bytes = file.metadata()?.len();
        sync_folder(path)?;
        let path = path.to_owned();
        let folder =
            Self { path, _lock: lock, file, file_path, day, first, bytes, is_dirty: false };
        Ok(Opened { folder, tree, recovered })
    }

    /// Appends complete lines. After an error nothing of them is in the log.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_dirty {
            self.file.set_len(self.bytes)?;
            self.is_dirty = false;
        }
        if let Err(error) = self.file.write_all(lines) {
            // If this fails too, it is done before the next lines.
            self.is_dirty = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Waits until what was appended is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether the next line belongs into a new file.
    pub(crate) fn is_full(&self, bytes_max: u64) -> bool {
        self.bytes > 0 && (self.bytes >= bytes_max || self.day != today())
    }

    /// Begins a new file after the first `end.size` lines. If that fails, the open one goes on.
    pub(crate) fn rotate(&mut self, mut end: FileEnd, tree: &mut Tree) -> io::Result<()> {
        self.sync()?;
        tree.sync()?;
        end.file = self.file_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut line = serde_json::to_vec(&end)?;
        line.push(b'\n');
        let mut ends = private(OpenOptions::new().append(true).create(true))
            .open(self.path.join(CHECKPOINTS_FILE))?;
        let length = ends.metadata()?.len();
        if let Err(error) = ends.write_all(&line).and_then(|()| ends.sync_data()) {
            let _ = ends.set_len(length);
            return Err(error);
        }
        let day = today();
        let path = self.path.join(file_name(day, end.size));
        let file = open_lines(&path)?;
        sync_folder(&self.path)?;
        (self.file, self.file_path, self.day, self.first, self.bytes) =
            (file, path, day, end.size, 0);
        Ok(())
    }

    /// Publishes the latest signed checkpoint.
    pub(crate) fn publish(&self, note: &str) -> io::Result<()> {
        private_files::replace(&self.path.join(CHECKPOINT_FILE), note.as_bytes()).map(drop)
    }

    /// Deletes files of lines whose day is more than `days` ago, but for the open one. Returns the
    /// number of the first line that remains.
    pub(crate) fn prune(&self, days: u32) -> io::Result<u64> {
        prune(&self.path, days, Some(self.first))
    }
}

/// The first day whose files are retained.
fn oldest_day(days: u32) -> Date {
    today().saturating_sub(jiff::Span::new().days(days.min(36_500)))
}

fn prune(folder: &Path, days: u32, open: Option<u64>) -> io::Result<u64> {
    let files = line_files(folder)?;
    // Lines that a required receiver lacks are retained.
    let required_from = required_from(folder)?;
    for (index, (first, day, path)) in files.iter().enumerate() {
        let end = files.get(index + 1).map_or(u64::MAX, |(next, ..)| *next);
        // Only a prefix is deleted, whatever the clock said when a file was named.
        if *day >= oldest_day(days) || Some(*first) == open || end > required_from {
            return Ok(*first);
        }
        fs::remove_file(path)?;
        tracing::info!(file = %path.display(), "deleted an old file of the audit log");
    }
    Ok(0)
}

/// Deletes the old files of logs that no process writes any more.
pub(crate) fn prune_others(root: &Path, own: &Path, days: u32) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        // A log that is about to be continued must not find itself locked.
        let is_old = |(_, day, _): &(u64, Date, PathBuf)| *day < oldest_day(days);
        if path == own || !line_files(&path).is_ok_and(|files| files.first().is_some_and(is_old)) {
            continue;
        }
        let lock = OpenOptions::new().write(true).open(path.join(LOCK_FILE))?;
        if lock.try_lock().is_ok() {
            prune(&path, days, None)?;
        }
    }
    Ok(())
}

fn file_name(day: Date, first: u64) -> String {
    format!("{day}.{first:012}.{LINES_SUFFIX}")
}

fn open_lines(path: &Path) -> io::Result<File> {
    let file = private(OpenOptions::new().append(true).create(true)).open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            let restricted = file.set_permissions(fs::Permissions::from_mode(0o600));
            if let Err(error) = restricted {
                // It may belong to another user, or the volume may force group permissions.
                let file = path.display();
                tracing::warn!(%error, %file, "other users may be able to read the audit log");
            }
        }
    }
    Ok(file)
}

/// Makes the names of new files durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
