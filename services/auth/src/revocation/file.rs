//! Revocations in a file, for an auth without Redis: a restart forgets none.

use std::{
    io,
    path::{Path, PathBuf},
};

use drawbridge_proto::auth::v1::TokenSet;
use drawbridge_sdk::own;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{List, shared::Entry};

/// The largest file, in bytes: as many revocations as are remembered, of long names.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A revocation, and when it was, in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    entry: Entry,
    at: u64,
}

#[derive(Debug)]
pub(super) struct RevocationsFile {
    path: PathBuf,
    /// One write at a time, so that the last one has them all.
    writing: Mutex<()>,
}

impl RevocationsFile {
    /// The file, and what it has since then.
    pub(super) fn open(path: &Path, since: u64) -> io::Result<(Self, Vec<(TokenSet, u64)>)> {
        let bytes = match own::read(path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => b"[]".to_vec(),
            Err(error) => return Err(error),
        };
        let lines: Vec<Line> = serde_json::from_slice(&bytes)?;
        let revoked = lines.into_iter().filter(|line| line.at >= since);
        let revoked = revoked.map(|line| (TokenSet::from(line.entry), line.at)).collect();
        Ok((Self { path: path.to_owned(), writing: Mutex::default() }, revoked))
    }

    /// Writes the list as it is when nothing else is being written.
    pub(super) async fn write(&self, list: impl FnOnce() -> List) -> io::Result<()> {
        let _writing = self.writing.lock().await;
        let list = list();
        let lines =
            list.entries().filter_map(|(tokens, at)| Some(Line { entry: Entry::of(&tokens)?, at }));
        let bytes = serde_json::to_vec(&lines.collect::<Vec<_>>())?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it would have more than {FILE_BYTES_MAX} bytes"
            )));
        }
        let path = self.path.clone();
        let writing = tokio::task::spawn_blocking(move || own::replace(&path, &bytes).map(drop));
        writing.await.unwrap_or_else(|error| Err(error.into()))
    }
}
