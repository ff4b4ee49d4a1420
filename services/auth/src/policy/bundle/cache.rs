//! The last good bundle on disk, as it was received, so that its signatures still verify.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use drawbridge_runtime::{bounded, private_files};

use super::{
    BundleError, SignedBundle,
    archive::BUNDLE_BYTES_MAX,
    keys::TrustedKeys,
    note::{NOTE_BYTES_MAX, Note},
    release::Release,
};

const NOTE: &str = "policies.sig";
const BUNDLE_SUFFIX: &str = ".tar.gz";

/// Whether a file has a name that [`BundleCache`] gives to bundles.
fn is_bundle(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let digest = name.and_then(|name| name.strip_suffix(BUNDLE_SUFFIX));
    digest.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A folder with the last good bundle.
#[derive(Clone, Debug)]
pub(super) struct BundleCache {
    folder: PathBuf,
}

impl BundleCache {
    /// Uses a folder, which is created if needed.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        private_files::create_folder(folder)?;
        private_files::check_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn bundle_path(&self, release: &Release) -> PathBuf {
        self.folder.join(format!("{}{BUNDLE_SUFFIX}", release.sha256_hex()))
    }

    /// The bundle, if there is one. It is verified as if it had just arrived.
    pub(super) fn load(&self, keys: &TrustedKeys) -> Result<Option<SignedBundle>, BundleError> {
        let failed = |source: io::Error| BundleError::Cache { path: self.folder.clone(), source };
        let note = match bounded::read_file(&self.folder.join(NOTE), NOTE_BYTES_MAX as u64) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => Bytes::from(read.map_err(failed)?),
        };
        let release = keys.verify(&note)?;
        let packed = bounded::read_file(&self.bundle_path(&release), BUNDLE_BYTES_MAX as u64);
        SignedBundle::new(note, release, packed.map_err(failed)?.into()).map(Some)
    }

    /// What the note of the last bundle says, even if its keys are not trusted any more: no older
    /// bundle may replace it. Only the user of the process could write it.
    pub(super) fn release(&self) -> Option<Release> {
        let note = bounded::read_file(&self.folder.join(NOTE), NOTE_BYTES_MAX as u64).ok()?;
        Release::parse(Note::parse(&note).ok()?.text()).ok()
    }

    /// Stores a bundle in place of the last one. Its note is written last: it names the bundle.
    pub(super) fn store(&self, bundle: &SignedBundle) -> io::Result<()> {
        let own = self.bundle_path(&bundle.release);
        private_files::replace(&own, &bundle.packed)?;
        private_files::replace(&self.folder.join(NOTE), &bundle.note)?;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if is_bundle(&path) && path != own {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_not_bundles_of_the_cache_are_not_deleted() {
        let bundle = |name: &str| is_bundle(&Path::new("folder").join(name));
        assert!(bundle(&format!("{}.tar.gz", "0a".repeat(32))));
        for foreign in ["backup.tar.gz", ".tar.gz", &format!("{}.tar.gz", "0a".repeat(33)), NOTE] {
            assert!(!bundle(foreign), "{foreign}");
        }
    }
}
