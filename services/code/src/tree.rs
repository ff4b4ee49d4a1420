//! The source tree as a capability: whatever is opened is opened beneath the root's handle, so that no
//! path, symbolic link or race leads out of it.

use std::{
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use cap_fs_ext::OpenOptionsSyncExt as _;
use cap_std::{
    ambient_authority,
    fs::{Dir, Metadata, OpenOptions, ReadDir},
};

use crate::error::CodeError;

/// Git's own folder. It is no source, and its config may hold credentials.
const GIT_FOLDER: &str = ".git";

/// A path relative to the root, of plain names only. The root itself is the empty path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreePath(PathBuf);

impl TreePath {
    /// Reads the request field `path`.
    ///
    /// # Errors
    /// When it is absolute, goes up with `..`, holds a NUL, or is not in its one canonical form: a policy that
    /// reads the path must not be evaded by another spelling of it.
    pub(crate) fn parse(text: &str) -> Result<Self, CodeError> {
        let refuse = |problem: &str| Err(CodeError::argument("path", problem));
        if text.contains('\0') {
            return refuse("must not contain NUL");
        }
        let mut path = PathBuf::new();
        for component in Path::new(text).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                Component::ParentDir => return refuse("must not contain `..`"),
                Component::RootDir | Component::Prefix(_) => {
                    return refuse("must be relative to the source tree's root");
                }
            }
        }
        match path.to_str() {
            Some(canonical) if canonical == text => Ok(Self(path)),
            Some("") => refuse("must be left empty for the root"),
            Some(canonical) => refuse(&format!("must be written as `{canonical}`")),
            None => refuse("must be UTF-8"),
        }
    }

    /// Reads the request field `path` where it must name something.
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
}

impl Tree {
    /// Opens the tree at `root`. Later changes of what `root` names do not matter.
    ///
    /// # Errors
    /// When `root` is not a folder that can be opened.
    pub(crate) fn open(root: &Path, file_bytes_max: u64) -> io::Result<Self> {
        Ok(Self { root: Dir::open_ambient_dir(root, ambient_authority())?, file_bytes_max })
    }

    /// The contents of a text file. Hidden and ignored files can be read by name, Git's own cannot. Symbolic
    /// links are followed as long as they stay in the tree.
    ///
    /// # Errors
    /// When there is no such file, or it is not a regular text file within the size limit.
    pub(crate) fn read(&self, path: &TreePath) -> Result<Vec<u8>, CodeError> {
        let mut contents = Vec::new();
        self.read_into(&self.resolve(path)?, &mut contents)?;
        Ok(contents)
    }

    /// The folder that `path` names, without symbolic links.
    ///
    /// # Errors
    /// When there is no such folder.
    pub(crate) fn folder(&self, path: &TreePath) -> Result<PathBuf, CodeError> {
        if path.0.as_os_str().is_empty() {
            return Ok(PathBuf::new());
        }
        let folder = self.resolve(path)?;
        if !self.metadata(&folder)?.is_dir() {
            return Err(CodeError::NotAFolder);
        }
        Ok(folder)
    }

    /// What `path` leads to, within the tree.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.root.metadata(path)
    }

    /// The entries of a folder; the empty path is the root.
    pub(crate) fn entries(&self, folder: &Path) -> io::Result<ReadDir> {
        if folder.as_os_str().is_empty() { self.root.entries() } else { self.root.read_dir(folder) }
    }

    /// Replaces `contents` with those of a text file: no NUL, within the size limit.
    pub(crate) fn read_into(&self, path: &Path, contents: &mut Vec<u8>) -> Result<(), CodeError> {
        contents.clear();
        // Opening a device can have effects, so look first. Look again once it is open, because it may
        // have been replaced meanwhile; then a FIFO must not block the opening.
        if !self.metadata(path)?.is_file() {
            return Err(CodeError::NotAFile);
        }
        let file = self.root.open_with(path, OpenOptions::new().read(true).nonblock(true))?;
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
        Ok(())
    }

    fn resolve(&self, path: &TreePath) -> Result<PathBuf, CodeError> {
        let resolved = self.root.canonicalize(&path.0)?;
        if resolved.components().any(|name| name.as_os_str().eq_ignore_ascii_case(GIT_FOLDER)) {
            return Err(CodeError::NotFound);
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;
    use crate::sample::{FILE_BYTES_MAX, OUTSIDE, Sample};

    fn read(sample: &Sample, path: &str) -> Result<String, CodeError> {
        let contents = sample.tree().read(&TreePath::parse_file(path)?)?;
        Ok(String::from_utf8(contents).unwrap())
    }

    fn sample_with_ways_out() -> Sample {
        let sample = Sample::of(&[("a.txt", "a\n"), ("src/b.txt", "b\n"), (".git/config", "token\n")]);
        sample.link("out.txt", "../outside/secret.txt");
        sample.link("out", "../outside");
        sample.link("absolute.txt", sample.path().join("outside/secret.txt"));
        sample.link("absolute", sample.path());
        sample.link("src/up", "..");
        sample.link("git", ".git");
        sample
    }

    #[test]
    fn a_file_is_read_by_its_path() {
        let sample = sample_with_ways_out();
        for (path, contents) in [("a.txt", "a\n"), ("src/b.txt", "b\n")] {
            assert_eq!(read(&sample, path).unwrap(), contents, "{path}");
        }
    }

    #[test]
    fn another_spelling_of_a_path_is_refused_so_that_no_policy_is_evaded() {
        for path in ["./src/b.txt", "src//b.txt", "src/./b.txt", "src/b.txt/", "src/b.txt/."] {
            let refused = TreePath::parse(path).unwrap_err();
            assert!(refused.to_string().contains("must be written as `src/b.txt`"), "{path}: {refused}");
        }
        for path in [".", "./", "./."] {
            assert!(TreePath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_link_within_the_tree_is_followed() {
        let sample = Sample::of(&[("src/a.txt", "a\n")]);
        sample.link("file", "src/a.txt");
        sample.link("folder", "src");
        sample.link("src/back", "../src/a.txt");
        for path in ["file", "folder/a.txt", "src/back"] {
            assert_eq!(read(&sample, path).unwrap(), "a\n", "{path}");
        }
    }

    #[test]
    fn a_path_that_is_not_within_the_tree_is_a_wrong_argument() {
        let sample = sample_with_ways_out();
        for path in
            ["", ".", "./", "..", "../outside/secret.txt", "src/../a.txt", "/etc/passwd", "/", "a.txt\0"]
        {
            let error = read(&sample, path).unwrap_err();
            assert!(matches!(error, CodeError::Argument { field: "path", .. }), "{path:?}: {error:?}");
        }
    }

    #[test]
    fn a_link_out_of_the_tree_is_refused() {
        let sample = sample_with_ways_out();
        for path in ["out.txt", "out/secret.txt", "absolute.txt", "absolute/outside/secret.txt", "out"] {
            let error = read(&sample, path).unwrap_err();
            assert!(matches!(error, CodeError::OutOfTree), "{path}: {error:?}");
        }
    }

    #[test]
    fn what_is_missing_is_not_found() {
        let sample = sample_with_ways_out();
        sample.link("dangling", "nowhere");
        let long = "x".repeat(300);
        for path in ["missing", "src/missing", "a.txt/b", "dangling", &long] {
            let error = read(&sample, path).unwrap_err();
            assert!(matches!(error, CodeError::NotFound), "{path}: {error:?}");
        }
    }

    #[test]
    fn gits_own_folder_is_not_found_not_even_through_a_link() {
        let sample = sample_with_ways_out();
        for path in [".git/config", "git/config", "src/up/.git/config"] {
            let error = read(&sample, path).unwrap_err();
            assert!(matches!(error, CodeError::NotFound), "{path}: {error:?}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_never_blocks() {
        let sample = Sample::of(&[("src/a.txt", "a\n")]);
        sample.fifo("fifo");
        sample.link("to_fifo", "fifo");
        let _socket = UnixListener::bind(sample.path().join("tree/socket")).unwrap();
        for path in ["fifo", "to_fifo", "socket", "src"] {
            let error = read(&sample, path).unwrap_err();
            assert!(matches!(error, CodeError::NotAFile), "{path}: {error:?}");
        }
    }

    #[test]
    fn a_device_is_refused() {
        let tree = Tree::open(Path::new("/dev"), FILE_BYTES_MAX).unwrap();
        let error = tree.read(&TreePath::parse_file("zero").unwrap()).unwrap_err();
        assert!(matches!(error, CodeError::NotAFile), "{error:?}");
    }

    #[test]
    fn a_binary_file_and_a_large_file_are_refused() {
        let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
        let sample = Sample::of(&[("just", &"x".repeat(limit)), ("large", &"x".repeat(limit + 1))]);
        sample.write("binary", b"text\0text");
        assert_eq!(read(&sample, "just").unwrap().len(), limit);
        assert!(matches!(read(&sample, "binary").unwrap_err(), CodeError::Binary));
        let error = read(&sample, "large").unwrap_err();
        assert_eq!(error.to_string(), "the file is larger than the limit of 100000 bytes");
    }

    #[test]
    fn a_root_that_is_no_folder_cannot_be_opened() {
        let sample = Sample::of(&[("a.txt", "a\n")]);
        for root in ["missing", "tree/a.txt"] {
            assert!(Tree::open(&sample.path().join(root), FILE_BYTES_MAX).is_err(), "{root}");
        }
    }

    fn path_text() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            Just("..".to_owned()),
            Just(".".to_owned()),
            Just(String::new()),
            prop::sample::select(vec!["out", "out.txt", "absolute", "absolute.txt", "src", "up", "tree"])
                .prop_map(str::to_owned),
            prop::sample::select(vec!["outside", "secret.txt", "a.txt", "b.txt", "git", ".git", "config"])
                .prop_map(str::to_owned),
            any::<String>(),
        ];
        prop_oneof![any::<String>(), prop::collection::vec(name, 1..7).prop_map(|names| names.join("/"))]
    }

    #[test]
    fn no_path_reads_what_lies_outside() {
        let sample = sample_with_ways_out();
        proptest!(|(path in path_text())| {
            if let Ok(contents) = read(&sample, &path) {
                prop_assert!(["a\n", "b\n"].contains(&contents.as_str()), "{path:?} reads {contents:?}");
            }
        });
        assert_eq!(std::fs::read_to_string(sample.path().join("outside/secret.txt")).unwrap(), OUTSIDE);
    }
}
