//! Logs of replicas that run no more, whose lines a receiver lacks: a replica with the same folder
//! sends them. In Kubernetes each pod is another replica.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::{SentLog, backlog::Backlog};
use crate::{
    folder::{LOCK_FILE, lock_root},
    position::Position,
    tree::private,
};

/// Locks a log for one sender. `None`: another one has it.
pub(super) fn try_lock(folder: &Path, sink: &str) -> io::Result<Option<File>> {
    let path = folder.join(format!("sink.{sink}.lock"));
    let lock = private(OpenOptions::new().write(true).create(true)).open(path)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A log without a process that would send the rest of it.
pub(super) struct Orphan {
    pub(super) folder: PathBuf,
    /// The number of its lines.
    pub(super) size: u64,
    pub(super) lock: File,
}

/// The first log of another replica of the service that a sink has begun to send, and that no
/// process writes or sends any more.
pub(super) fn find(own: &SentLog, sink: &str, to: &str) -> io::Result<Option<Orphan>> {
    let root = own.folder.parent().unwrap_or(Path::new("."));
    let (of_service, of_replica) =
        (format!("{}.", own.service), format!("{}.{}.", own.service, own.replica));
    for entry in fs::read_dir(root)? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let position = Position::new(&folder, sink, to, own.is_required);
        let is_of_another = name.starts_with(&of_service) && !name.starts_with(&of_replica);
        if !is_of_another || !position.exists() {
            continue;
        }
        let size = Backlog::size(&folder)?;
        if position.load()? >= size {
            continue;
        }
        // A process that opens the log meanwhile must not find it locked.
        let _opening = lock_root(root)?;
        let writer = OpenOptions::new().write(true).open(folder.join(LOCK_FILE))?;
        if writer.try_lock().is_ok()
            && let Some(lock) = try_lock(&folder, sink)?
        {
            // The writer may have stopped after the first look.
            let size = Backlog::size(&folder)?;
            return Ok(Some(Orphan { folder, size, lock }));
        }
    }
    Ok(None)
}
