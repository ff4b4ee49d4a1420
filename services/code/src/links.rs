//! Hard links: a file that may hold keys can have a second name that says nothing of it.

use std::{collections::HashSet, path::PathBuf};

use cap_fs_ext::MetadataExt as _;
use cap_std::fs::Metadata;
use drawbridge_sdk::Cancellation;

use crate::{
    error::CodeError,
    tree::{Tree, is_gits},
};

const GIT_OBJECTS: &str = ".git/objects";

/// The files of a tree that may hold keys and have more than one name, and Git's own ones. They are looked
/// for when a file of several names is read for the first time.
pub(crate) struct SecretLinks<'a> {
    tree: &'a Tree,
    cancellation: &'a Cancellation,
    /// Their devices and inodes.
    found: Option<HashSet<(u64, u64)>>,
}

impl<'a> SecretLinks<'a> {
    pub(crate) fn new(tree: &'a Tree, cancellation: &'a Cancellation) -> Self {
        Self { tree, cancellation, found: None }
    }

    /// Whether this file is one of them.
    pub(crate) fn contain(&mut self, file: &Metadata) -> Result<bool, CodeError> {
        if file.nlink() < 2 {
            return Ok(false);
        }
        let found = match self.found.take() {
            Some(found) => found,
            None => self.look()?,
        };
        Ok(self.found.insert(found).contains(&(file.dev(), file.ino())))
    }

    /// Hidden and ignored files count. What cannot be looked at is passed over.
    fn look(&self) -> Result<HashSet<(u64, u64)>, CodeError> {
        let mut found = HashSet::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = self.tree.entries(&folder) else { continue };
            for entry in entries.flatten() {
                self.cancellation.check()?;
                let (path, Ok(kind)) = (folder.join(entry.file_name()), entry.file_type()) else {
                    continue;
                };
                if kind.is_dir() {
                    // Git's objects are many, and it gives each a single name.
                    folders.extend(Some(path).filter(|path| !path.ends_with(GIT_OBJECTS)));
                } else if (is_gits(&path) || self.tree.is_secret(&path, false))
                    && let Ok(metadata) = entry.metadata()
                    && metadata.nlink() > 1
                {
                    found.insert((metadata.dev(), metadata.ino()));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sample::{Sample, waiting},
        tree::TreePath,
    };

    #[test]
    fn a_file_with_a_second_name_that_is_on_the_list_is_refused() {
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
        let read = |path: &str| tree.read(&TreePath::parse_file(path).unwrap(), &waiting());
        assert_eq!(read("b.txt").unwrap(), b"text\n");
        for path in ["server.txt", "env.txt", "git.txt"] {
            let refused = read(path).unwrap_err();
            assert!(matches!(refused, CodeError::Secret), "{path}: {refused:?}");
        }
    }
}
