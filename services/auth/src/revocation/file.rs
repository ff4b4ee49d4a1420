//! A file of revocations for an auth without Redis, so that they survive a restart.

use std::{
    io,
    path::{Path, PathBuf},
};

use drawbridge_proto::auth::v1::TokenSet;
use drawbridge_runtime::private_files;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{list::RevocationList, shared::RevocationEntry};

/// The largest file in bytes: enough for REVOCATIONS_MAX long names.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A revocation with its time in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct FileEntry {
    #[serde(flatten)]
    entry: RevocationEntry,
    at: u64,
}

#[derive(Debug)]
pub(super) struct RevocationsFile {
    path: PathBuf,
    /// One write at a time, so that the last one contains all revocations.
    writing: Mutex<()>,
}

impl RevocationsFile {
    /// Opens the file and returns its revocations at `since` or later.
    pub(super) fn open(path: &Path, since: u64) -> io::Result<(Self, Vec<(TokenSet, u64)>)> {
        let bytes = match private_files::read(path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => b"[]".to_vec(),
            Err(error) => return Err(error),
        };
        let entries: Vec<FileEntry> = serde_json::from_slice(&bytes)?;
        let revoked = entries.into_iter().filter(|entry| entry.at >= since);
        let revoked = revoked.map(|entry| (TokenSet::from(entry.entry), entry.at)).collect();
        Ok((Self { path: path.to_owned(), writing: Mutex::default() }, revoked))
    }

    /// Writes the list as it is after any earlier write has finished.
    pub(super) async fn write(&self, list: impl FnOnce() -> RevocationList) -> io::Result<()> {
        let _writing = self.writing.lock().await;
        let list = list();
        let entries = list.entries().filter_map(|(tokens, at)| {
            Some(FileEntry { entry: RevocationEntry::new(&tokens)?, at })
        });
        let bytes = serde_json::to_vec(&entries.collect::<Vec<_>>())?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it would exceed {FILE_BYTES_MAX} bytes")));
        }
        let path = self.path.clone();
        let writing =
            tokio::task::spawn_blocking(move || private_files::replace(&path, &bytes).map(drop));
        writing.await.unwrap_or_else(|error| Err(error.into()))
    }
}
