//! The source tree as a capability: everything is opened beneath the root's handle, so that no
//! path, symbolic link or race leads outside.

use std::{
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt as _, OpenOptionsSyncExt as _};
use cap_std::{
    ambient_authority,
    fs::{Dir, Metadata, OpenOptions, ReadDir},
};

use crate::{error::CodeError, secrets::Secrets};

/// Git's folder. It is not source, and its config may contain credentials.
const GIT_FOLDER: &str = ".git";

/// A path relative to the root, of plain names only. The root is the empty path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreePath(PathBuf);

impl TreePath {
    /// Parses the request field `path`.
    ///
    /// # Errors
    /// When it is absolute, contains `..` or NUL, or is not in canonical form: another spelling
    /// must not evade a policy that reads the path.
    pub(crate) fn parse(text: &str) -> Result<Self, CodeError> {
        let reject = |problem: &str| Err(CodeError::argument("path", problem));
        if text.contains('\0') {
            return reject("must not contain NUL");
        }
        let mut path = PathBuf::new();
        for component in Path::new(text).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                Component::ParentDir => return reject("must not contain `..`"),
                Component::RootDir | Component::Prefix(_) => {
                    return reject("must be relative to the source tree's root");
                }
            }
        }
        match path.to_str() {
            Some(canonical) if canonical == text => Ok(Self(path)),
            Some("") => reject("must be left empty for the root"),
            Some(canonical) => reject(&format!("must be written as `{canonical}`")),
            None => reject("must be UTF-8"),
        }
    }

    /// Parses the request field `path` where it must name a file.
    ///
    /// # Errors
    /// As [`TreePath::parse`], and when it is empty or names the root.
    pub(crate) fn parse_file(text: &str) -> Result<Self, CodeError> {
        let path = Self::parse(text)?;
        if path.0.as_os_str().is_empty() {
            return Err(CodeError::argument("path", "must name a file"));
        }
        Ok(path)
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }
}

/// One source tree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Dir,
    file_bytes_max: u64,
    secrets: Secrets,
}

impl Tree {
    /// Opens the tree at `root`. The handle stays valid if `root` is later renamed or replaced.
    ///
    /// # Errors
    /// When `root` is not a folder that can be opened.
    pub(crate) fn open(root: &Path, file_bytes_max: u64, secrets: Secrets) -> io::Result<Self> {
        Ok(Self {
            root: Dir::open_ambient_dir(root, ambient_authority())?,
            file_bytes_max,
            secrets,
        })
    }

    /// Resolves the folder at `path`.
    ///
    /// # Errors
    /// When the folder does not exist, or the path leads through a symbolic link.
    pub(crate) fn folder(&self, path: &TreePath) -> Result<PathBuf, CodeError> {
        if path.0.as_os_str().is_empty() {
            return Ok(PathBuf::new());
        }
        self.check_canonical_name(path, true)?;
        if !self.metadata(&path.0)?.is_dir() {
            return Err(CodeError::NotAFolder);
        }
        Ok(path.0.clone())
    }

    /// Whether the file or folder may hold keys, by its name.
    pub(crate) fn is_secret(&self, path: &Path, is_folder: bool) -> bool {
        self.secrets.contain(path, is_folder)
    }

    /// The metadata of the target of `path`, within the tree.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.root.metadata(path)
    }

    /// The entries of a folder; the empty path is the root.
    pub(crate) fn entries(&self, folder: &Path) -> io::Result<ReadDir> {
        if folder.as_os_str().is_empty() { self.root.entries() } else { self.root.read_dir(folder) }
    }

    /// Replaces `contents` with those of a text file: no NUL, within the size limit, no symbolic
    /// link.
    pub(crate) fn read_into(
        &self,
        path: &Path,
        contents: &mut Vec<u8>,
    ) -> Result<Metadata, CodeError> {
        contents.clear();
        // Opening a device can have side effects, so check first. Check again once it is open: it
        // may have been replaced meanwhile. `nonblock`, so that a FIFO does not block.
        if !self.root.symlink_metadata(path)?.is_file() {
            return Err(CodeError::NotAFile);
        }
        let mut options = OpenOptions::new();
        options.read(true).nonblock(true).follow(FollowSymlinks::No);
        let file = self.root.open_with(path, &options)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(CodeError::NotAFile);
        }
        let bytes_max = self.file_bytes_max;
        if metadata.len() > bytes_max {
            return Err(CodeError::TooLarge { bytes_max });
        }
        // The file may grow while it is read.
        let length = file.take(bytes_max.saturating_add(1)).read_to_end(contents)?;
        if u64::try_from(length).is_ok_and(|length| length > bytes_max) {
            return Err(CodeError::TooLarge { bytes_max });
        }
        if contents.contains(&0) {
            return Err(CodeError::Binary);
        }
        Ok(metadata)
    }

    /// Rejects hidden files, and every path that is or leads through a symbolic link: the path that
    /// a policy has read must be the canonical name of the file.
    pub(crate) fn check_canonical_name(
        &self,
        path: &TreePath,
        is_folder: bool,
    ) -> Result<(), CodeError> {
        // First by the given name, so that the error does not reveal whether the file exists.
        if self.is_secret(&path.0, is_folder) {
            return Err(CodeError::Secret);
        }
        let canonical_path = self.root.canonicalize(&path.0)?;
        if is_in_git_folder(&canonical_path) {
            return Err(CodeError::NotFound);
        }
        if self.is_secret(&canonical_path, is_folder) {
            return Err(CodeError::Secret);
        }
        if canonical_path != path.0 {
            let problem =
                if canonical_path.as_os_str().is_empty() || canonical_path == Path::new(".") {
                    "leads through a symbolic link to the root; it must be left empty".to_owned()
                } else {
                    format!(
                        "leads through a symbolic link; it must be written as `{}`",
                        canonical_path.display()
                    )
                };
            return Err(CodeError::argument("path", problem));
        }
        Ok(())
    }
}

/// Whether the path is Git's folder or is inside it.
pub(crate) fn is_in_git_folder(path: &Path) -> bool {
    path.components().any(|name| name.as_os_str().eq_ignore_ascii_case(GIT_FOLDER))
}

#[cfg(test)]
mod tests;
