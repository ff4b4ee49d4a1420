//! The signed files beside the lines of a log.

use std::{io, path::Path};

use drawbridge_runtime::bounded;

use crate::{
    checkpoint::Checkpoint,
    files::{CHECKPOINT_FILE, FileEnd},
    note::{NOTE_BYTES_MAX, VerificationKey},
};

/// Whether the state at the end of a file is the one that was signed.
pub(super) fn check_end(end: &FileEnd, key: &VerificationKey) -> Result<(), String> {
    let signed = Checkpoint::open(&end.note, key).map_err(|error| error.to_string())?;
    if signed.size != end.size || end.frontier.size() != end.size {
        return Err("its size is not the one that is signed".to_owned());
    }
    if end.frontier.root() != signed.root {
        return Err("its hashes are not those that are signed".to_owned());
    }
    Ok(())
}

/// The latest signed checkpoint in the file beside the lines, with its place. `None`: there is no
/// file.
pub(super) fn latest(
    folder: &Path,
    key: &VerificationKey,
) -> Option<(String, Result<Checkpoint, String>)> {
    let path = folder.join(CHECKPOINT_FILE);
    let place = path.display().to_string();
    match bounded::read_file_to_string(&path, NOTE_BYTES_MAX as u64) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some((place, Err(error.to_string()))),
        Ok(note) => Some((place, Checkpoint::open(&note, key).map_err(|error| error.to_string()))),
    }
}
