//! A source tree for tests, in a folder that also contains files outside the tree.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use drawbridge_sdk::Cancellation;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{query::SearchLimits, secrets::Secrets, tree::Tree};

/// The size limit of the sample's files.
pub(crate) const FILE_BYTES_MAX: u64 = 100_000;
pub(crate) const LIMITS: SearchLimits =
    SearchLimits { query_bytes_max: 4096, glob_bytes_max: 1024, line_bytes_max: 16 * 1024 };
/// The content of files outside the tree.
pub(crate) const OUTSIDE: &str = "needle outside of the tree\n";

pub(crate) struct Sample(TempDir);

impl Sample {
    /// A tree of these files.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let sample = Self(tempfile::tempdir().unwrap());
        fs::create_dir(sample.0.path().join("tree")).unwrap();
        fs::create_dir(sample.0.path().join("outside")).unwrap();
        fs::write(sample.0.path().join("outside/secret.txt"), OUTSIDE).unwrap();
        for (path, contents) in files {
            sample.write(path, contents.as_bytes());
        }
        sample
    }

    /// The folder that contains the tree and the files outside it.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, path: &str, contents: &[u8]) {
        let path = self.0.path().join("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
        symlink(target, self.0.path().join("tree").join(path)).unwrap();
    }

    /// Another name for the same file.
    pub(crate) fn hard_link(&self, path: &str, original: &str) {
        let tree = self.0.path().join("tree");
        fs::hard_link(tree.join(original), tree.join(path)).unwrap();
    }

    pub(crate) fn fifo(&self, path: &str) {
        let status = Command::new("mkfifo").arg(self.0.path().join("tree").join(path)).status();
        assert!(status.expect("mkfifo, from coreutils").success());
    }

    pub(crate) fn tree(&self) -> Tree {
        let secrets = Secrets::new(&[]).unwrap();
        Tree::open(&self.0.path().join("tree"), FILE_BYTES_MAX, secrets).unwrap()
    }
}

/// A cancellation that does not fire within a test.
pub(crate) fn no_cancellation() -> Cancellation {
    Cancellation::new(CancellationToken::new(), Instant::now() + Duration::from_secs(60))
}
