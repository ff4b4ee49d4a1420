//! Opening a log: its keys, and the log that it continues.

use std::{
    io,
    path::{Path, PathBuf},
};

use drawbridge_runtime::{bounded, private_files};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    AuditConfig,
    folder::{Damage, Folder},
    key::KEY_FILE_BYTES_MAX,
    lines::{FIRST_PREV, named},
    note::{KeyError, SigningKey},
    output::Output,
    tree::Tree,
    writer::Start,
};

/// The audit log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Its folder cannot be used.
    #[error("cannot write the audit log in {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key cannot be used.
    #[error("cannot use a key of the audit log")]
    Key(#[from] io::Error),
    /// The file of the signing key has something else.
    #[error("cannot use the signing key of the audit log in {}", file.display())]
    SigningKey {
        /// The file.
        file: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The audit log cannot be sent as configured.
    #[error("cannot send the audit log: {0}")]
    Sink(String),
}

/// The text of the signing key, and its file.
pub(crate) fn signing_key_text(
    config: &AuditConfig,
    folder: Option<&Path>,
    service: &str,
    replica: &str,
) -> Result<(PathBuf, SecretString), AuditError> {
    let generate = |file: &Path| {
        SigningKey::generate(&format!("{service}/{replica}"))
            .map_err(|source| AuditError::SigningKey { file: file.to_owned(), source })
    };
    let (file, may_create) = match (&config.audit_signing_key_file, folder) {
        (Some(file), _) => (file.clone(), false),
        (None, Some(folder)) => (folder.join(format!("{service}.{replica}.key")), true),
        // Nothing of this log is there after a restart.
        (None, None) => return Ok((PathBuf::from("-"), generate(Path::new("-"))?.1)),
    };
    // A mounted secret may belong to another user, who lets this one read it.
    let read = if may_create {
        private_files::read_secret(&file, KEY_FILE_BYTES_MAX)
    } else {
        bounded::read_file(&file, KEY_FILE_BYTES_MAX).map_err(|error| named(&file, &error))
    };
    match read {
        Ok(bytes) => Ok((file, String::from_utf8_lossy(&bytes).into_owned().into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_create => {
            let (_, text) = generate(&file)?;
            private_files::replace(&file, format!("{}\n", text.expose_secret()).as_bytes())?;
            Ok((file, text))
        }
        Err(error) => Err(error.into()),
    }
}

/// A log that is about to be written.
pub(crate) struct OpenedLog {
    /// The name of the log.
    pub(crate) log: String,
    pub(crate) output: Output,
    pub(crate) tree: Tree,
    pub(crate) start: Start,
}

/// Continues the latest log of this replica, or begins a new one. One key signs all checkpoints of a
/// log: `is_own` says whether it is this replica's.
pub(crate) fn open_log(
    config: &AuditConfig,
    root: Option<&Path>,
    service: &str,
    replica: &str,
    is_own: impl Fn(&str, &str) -> bool,
) -> io::Result<OpenedLog> {
    let fresh = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
    let Some(root) = root else {
        let start = Start { prev: FIRST_PREV.to_owned(), ..Start::default() };
        let log = format!("{service}/{replica}/{fresh}");
        return Ok(OpenedLog { log, output: Output::Stdout, tree: Tree::in_memory(), start });
    };
    let mut follows = None;
    let latest = latest_start(root, &format!("{service}.{replica}."))?;
    for begin in latest.into_iter().chain([fresh]) {
        let log = format!("{service}/{replica}/{begin}");
        let path = root.join(format!("{service}.{replica}.{begin}"));
        let opened = Folder::open(&path, &log).and_then(|opened| match &opened.recovered.key {
            Some(key) if !is_own(&log, key) => Err(Damage::OtherKey),
            _ => Ok(opened),
        });
        match opened {
            Ok(opened) => {
                let mut start = Start::new(opened.recovered);
                start.record.follows = follows;
                let output = Output::Folder {
                    folder: Box::new(opened.folder),
                    root: root.to_owned(),
                    days: config.audit_days,
                    file_bytes_max: config.audit_file_bytes_max,
                };
                return Ok(OpenedLog { log, output, tree: opened.tree, start });
            }
            Err(Damage::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(error);
            }
            Err(damage) => {
                tracing::error!(%log, %damage, "cannot continue the audit log; a new one begins");
                follows = Some(format!("{log}: {damage}"));
            }
        }
    }
    Err(io::Error::other("the folder of a new log is in use"))
}

/// The start of the latest log of a replica, whose folder begins with `prefix`.
fn latest_start(root: &Path, prefix: &str) -> io::Result<Option<String>> {
    let mut latest = None;
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name();
        let start = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let start = start.filter(|start| start.ends_with('Z') && !start.contains('.'));
        latest = latest.max(start.map(str::to_owned));
    }
    Ok(latest)
}
