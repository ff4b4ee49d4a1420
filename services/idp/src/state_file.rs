//! The state file: the signing key, registered clients, and grants with their refresh tokens. It is
//! rewritten completely before a change is acknowledged.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use drawbridge_runtime::private_files;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::grant_type::GrantType;

const VERSION: u32 = 1;
/// The largest file, in bytes. Beyond it, unused registrations are dropped first, then older
/// entries.
const STATE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be read, or other users can read or write it.
    #[error("cannot read the state file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the state file {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It has an unknown format.
    #[error(
        "{path} is not a state file of this version: remove it to start without clients and tokens"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// Its signing key is invalid.
    #[error(
        "the signing key in {path} is invalid: remove the file to start without clients and tokens"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: crate::KeyError,
    },
}

/// The contents of the file. Not `Debug`: it contains secrets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Snapshot {
    version: u32,
    /// The signing key: PKCS #8 in base64.
    pub(crate) key: String,
    /// Clients with a sign-in.
    pub(crate) clients: Vec<SavedClient>,
    /// Registrations without a sign-in.
    pub(crate) unused: Vec<SavedRegistration>,
    pub(crate) grants: Vec<SavedGrant>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedClient {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) grant_types: Vec<GrantType>,
    pub(crate) secret: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedRegistration {
    pub(crate) client: SavedClient,
    /// The address to whose limit it counts.
    pub(crate) address: IpAddr,
    /// In seconds since 1970, like all times here.
    pub(crate) expires: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedGrant {
    /// The family of its refresh tokens.
    pub(crate) family: Uuid,
    /// The SHA-256 of the newest token's secret, in base64url.
    pub(crate) secret_sha256: String,
    pub(crate) client: String,
    pub(crate) subject: String,
    pub(crate) resource: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) expires: u64,
    /// The valid access tokens.
    pub(crate) issued: Vec<SavedToken>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedToken {
    pub(crate) id: Uuid,
    pub(crate) expires: u64,
}

impl Snapshot {
    pub(crate) fn new(
        key: String,
        clients: Vec<SavedClient>,
        unused: Vec<SavedRegistration>,
        grants: Vec<SavedGrant>,
    ) -> Self {
        Self { version: VERSION, key, clients, unused, grants }
    }

    /// The contents of the file, limited to `bytes_max`.
    fn within(mut self, bytes_max: usize) -> serde_json::Result<Vec<u8>> {
        // The newest entries expire last.
        self.unused.sort_by_key(|registration| std::cmp::Reverse(registration.expires));
        self.grants.sort_by_key(|grant| std::cmp::Reverse(grant.expires));
        loop {
            let text = serde_json::to_vec(&self)?;
            if text.len() <= bytes_max {
                return Ok(text);
            }
            tracing::warn!(bytes_max, "the state file would be too large; dropping entries");
            if !self.unused.is_empty() {
                self.unused.truncate(self.unused.len() / 2);
            } else if self.grants.len() > self.clients.len() {
                self.grants.truncate(self.grants.len() / 2);
            } else if !self.clients.is_empty() {
                self.clients.truncate(self.clients.len() / 2);
            } else {
                return Ok(text);
            }
        }
    }
}

/// The state file. Only one process writes it.
pub(crate) struct StateFile {
    path: PathBuf,
    changes: AtomicU64,
    /// The number of the last change in the file.
    written: Mutex<u64>,
}

impl StateFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, changes: AtomicU64::new(0), written: Mutex::new(0) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The contents of the file, if it exists.
    pub(crate) fn read(&self) -> Result<Option<Snapshot>, StateFileError> {
        let path = || self.path.clone();
        let bytes = match private_files::read_secret(&self.path, STATE_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateFileError::Read { path: path(), source }),
        };
        let malformed = |source| StateFileError::Malformed { path: path(), source };
        let snapshot: Snapshot = serde_json::from_slice(&bytes).map_err(malformed)?;
        if snapshot.version != VERSION {
            let why = format!("the file has version {}, expected {VERSION}", snapshot.version);
            return Err(malformed(serde::de::Error::custom(why)));
        }
        Ok(Some(snapshot))
    }

    /// Writes the current state. Returns once the file contains at least the state at the time of
    /// the call.
    pub(crate) async fn write(
        self: &Arc<Self>,
        now: impl FnOnce() -> Snapshot + Send + 'static,
    ) -> Result<(), StateFileError> {
        let change = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        let file = Arc::clone(self);
        // A task of its own, so that a client's disconnect does not cancel the write.
        let writing = tokio::spawn(async move {
            let mut written = file.written.lock().await;
            if *written >= change {
                return Ok(());
            }
            let upto = file.changes.load(Ordering::SeqCst);
            let (path, snapshot) = (file.path.clone(), now());
            let write =
                move || private_files::replace(&path, &snapshot.within(STATE_BYTES_MAX)?).map(drop);
            tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(error.into()))?;
            *written = upto;
            io::Result::Ok(())
        });
        let written = writing.await.unwrap_or_else(|error| Err(error.into()));
        written.map_err(|source| StateFileError::Write { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(expires: u64) -> SavedGrant {
        SavedGrant {
            family: Uuid::nil(),
            secret_sha256: "x".repeat(43),
            client: "client".to_owned(),
            subject: "alice".to_owned(),
            resource: "https://mcp.example".to_owned(),
            scopes: vec!["mcp".to_owned()],
            expires,
            issued: Vec::new(),
        }
    }

    fn client(id: &str) -> SavedClient {
        SavedClient {
            id: id.to_owned(),
            name: None,
            redirect_uris: vec!["https://app.example/cb".to_owned()],
            grant_types: vec![GrantType::AuthorizationCode],
            secret: None,
        }
    }

    #[test]
    fn a_state_file_is_bounded_and_drops_unused_registrations_and_then_old_grants() {
        let make = || {
            let unused = (0..50).map(|expires| SavedRegistration {
                client: client("unused"),
                address: [127, 0, 0, 1].into(),
                expires,
            });
            let grants = (0..100).map(grant).collect();
            Snapshot::new("key".to_owned(), vec![client("used")], unused.collect(), grants)
        };
        let whole = make().within(usize::MAX).unwrap();
        let without_unused = make().within(whole.len() - 2000).unwrap();
        let read = |text: &[u8]| serde_json::from_slice::<Snapshot>(text).unwrap();
        let (first, second) = (read(&without_unused), read(&make().within(12_000).unwrap()));
        assert!(first.unused.len() < 50 && first.grants.len() == 100 && first.clients.len() == 1);
        assert!(second.unused.is_empty() && second.grants.len() < 100, "{}", second.grants.len());
        assert_eq!(second.grants.first().map(|grant| grant.expires), Some(99));
        assert_eq!(second.clients.len(), 1);
    }

    #[tokio::test]
    async fn a_write_contains_the_state_at_its_call_and_concurrent_writes_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(StateFile::new(folder.path().join("idp.json")));
        assert!(file.read().unwrap().is_none());
        let writes = (0..20).map(|number| {
            let file = Arc::clone(&file);
            let now =
                move || Snapshot::new(format!("{number}"), Vec::new(), Vec::new(), Vec::new());
            tokio::spawn(async move { file.write(now).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap().unwrap();
        }
        assert!(file.read().unwrap().is_some());
        std::fs::write(file.path(), "{\"version\":2}").unwrap();
        let refused = file.read().err().map(|error| error.to_string()).unwrap();
        assert!(refused.contains("is not a state file of this version: remove it"), "{refused}");
    }
}
