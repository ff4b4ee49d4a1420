//! Hard links: a file that may hold keys can have a second, innocuous name.

use std::{collections::HashSet, path::PathBuf};

use cap_fs_ext::MetadataExt as _;
use cap_std::fs::Metadata;
use drawbridge_sdk::Cancellation;

use crate::{
    error::CodeError,
    tree::{Tree, is_in_git_folder},
};

const GIT_OBJECTS: &str = ".git/objects";

/// The inodes of multiply linked files that may hold keys or are in Git's folder. The tree is
/// scanned for them when the first multiply linked file is read.
pub(crate) struct SecretLinks<'a> {
    tree: &'a Tree,
    cancellation: &'a Cancellation,
    /// Their devices and inodes.
    secret_inodes: Option<HashSet<(u64, u64)>>,
}

impl<'a> SecretLinks<'a> {
    pub(crate) fn new(tree: &'a Tree, cancellation: &'a Cancellation) -> Self {
        Self { tree, cancellation, secret_inodes: None }
    }

    /// Whether this file is one of them.
    pub(crate) fn contain(&mut self, file: &Metadata) -> Result<bool, CodeError> {
        if file.nlink() < 2 {
            return Ok(false);
        }
        let secret_inodes = match self.secret_inodes.take() {
            Some(secret_inodes) => secret_inodes,
            None => self.scan()?,
        };
        Ok(self.secret_inodes.insert(secret_inodes).contains(&(file.dev(), file.ino())))
    }

    /// Includes hidden and ignored files. Skips unreadable entries.
    fn scan(&self) -> Result<HashSet<(u64, u64)>, CodeError> {
        let mut secret_inodes = HashSet::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = self.tree.entries(&folder) else { continue };
            for entry in entries.flatten() {
                self.cancellation.check()?;
                let (path, Ok(kind)) = (folder.join(entry.file_name()), entry.file_type()) else {
                    continue;
                };
                if kind.is_dir() {
                    // Git's objects are many, and each has a single name.
                    folders.extend(Some(path).filter(|path| !path.ends_with(GIT_OBJECTS)));
                } else if (is_in_git_folder(&path) || self.tree.is_secret(&path, false))
                    && let Ok(metadata) = entry.metadata()
                    && metadata.nlink() > 1
                {
                    secret_inodes.insert((metadata.dev(), metadata.ino()));
                }
            }
        }
        Ok(secret_inodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        read::read,
        sample::{Sample, no_cancellation},
        tree::TreePath,
    };

    #[test]
    fn a_file_is_rejected_if_another_hard_link_may_hold_keys() {
        let sample = Sample::of(&[
            ("a.txt", "text\n"),
            ("deep/.ssh/server", "key\n"),
            ("deep/.env", "key\n"),
            (".git/config", "key\n"),
        ]);
        sample.hard_link("b.txt", "a.txt");
        sample.hard_link("server.txt", "deep/.ssh/server");
        sample.hard_link("env.txt", "deep/.env");
        sample.hard_link("git.txt", ".git/config");
        let tree = sample.tree();
        let read =
            |path: &str| read(&tree, &TreePath::parse_file(path).unwrap(), &no_cancellation());
        assert_eq!(read("b.txt").unwrap(), b"text\n");
        for path in ["server.txt", "env.txt", "git.txt"] {
            let refused = read(path).unwrap_err();
            assert!(matches!(refused, CodeError::Secret), "{path}: {refused:?}");
        }
    }
}
