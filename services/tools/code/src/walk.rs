//! Walks the tree's files.
//!
//! Existing walkers open ignore files by plain paths, so a FIFO named `.read_gitignore` would block
//! them, and a link out of the tree would be followed. This one does not.

use std::{
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
    vec,
};

use cap_std::fs::FileType;
use drawbridge_sdk::Cancellation;
use gix_ignore::{Search as IgnoreRules, glob::pattern::Case, search::Ignore};

use crate::{error::CodeError, query::Scope, tree::Tree};

const GITIGNORE: &str = ".gitignore";

/// A file found by the walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A regular file, by its path with `/`.
    File(String),
    /// An unreadable entry: a special file, a link without a target in the tree, a folder that
    /// cannot be opened, or a name that is not UTF-8.
    Unreadable,
}

/// Iterates over the files of a scope, ordered by path, name by name. Skips hidden files, files
/// excluded by `.read_gitignore` files and files that may hold keys. Does not follow links, since
/// the walk visits their targets in the tree anyway.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    scope: &'a Scope,
    cancellation: &'a Cancellation,
    // INVARIANT: every level's folder is in the folder of the level below it in the stack.
    levels: Vec<Level>,
    started: bool,
}

/// A partly walked folder.
#[derive(Debug)]
struct Level {
    folder: PathBuf,
    entries: vec::IntoIter<(OsString, FileType)>,
    ignore: IgnoreRules,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(tree: &'a Tree, scope: &'a Scope, cancellation: &'a Cancellation) -> Self {
        Self { tree, scope, cancellation, levels: Vec::new(), started: false }
    }

    fn enter(&mut self, folder: PathBuf) -> Option<Entry> {
        match Level::read(self.tree, self.scope, folder) {
            Ok(level) => {
                self.levels.push(level);
                None
            }
            Err(error) => {
                tracing::debug!(%error, "cannot read a folder");
                Some(Entry::Unreadable)
            }
        }
    }

    /// Makes one step. `Some(None)`: the step yielded no entry.
    fn step(&mut self) -> Option<Option<Entry>> {
        if !self.started {
            self.started = true;
            return Some(self.enter(PathBuf::new()));
        }
        let level = self.levels.last_mut()?;
        let Some((name, kind)) = level.entries.next() else {
            self.levels.pop();
            return Some(None);
        };
        let path = level.folder.join(name);
        if self.is_ignored(&path, kind.is_dir()) || self.tree.is_secret(&path, kind.is_dir()) {
            return Some(None);
        }
        Some(if kind.is_dir() { self.enter(path) } else { self.visit_file(&path, kind) })
    }

    /// The innermost `.read_gitignore` with a matching pattern decides (gitignore(5)).
    fn is_ignored(&self, path: &Path, is_folder: bool) -> bool {
        let rule = self.levels.iter().rev().find_map(|level| {
            let inside = path.strip_prefix(&level.folder).ok()?.as_os_str().as_encoded_bytes();
            level.ignore.pattern_matching_relative_path(
                inside.into(),
                Some(is_folder),
                Case::Sensitive,
            )
        });
        rule.is_some_and(|rule| !rule.pattern.is_negative())
    }

    fn visit_file(&self, path: &Path, kind: FileType) -> Option<Entry> {
        if !path.starts_with(&self.scope.folder) || !self.scope.matches(path) {
            return None;
        }
        if kind.is_file() {
            return Some(with_slashes(path).map_or(Entry::Unreadable, Entry::File));
        }
        let target = kind.is_symlink().then(|| self.tree.metadata(path));
        match target {
            Some(Ok(target)) if target.is_file() || target.is_dir() => None,
            _ => Some(Entry::Unreadable),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry, CodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Err(error) = self.cancellation.check() {
                return Some(Err(error.into()));
            }
            if let Some(entry) = self.step()? {
                return Some(Ok(entry));
            }
        }
    }
}

impl Level {
    fn read(tree: &Tree, scope: &Scope, folder: PathBuf) -> io::Result<Self> {
        let mut entries = Vec::new();
        let mut ignore = IgnoreRules::default();
        for entry in tree.entries(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let mut kind = entry.file_type()?;
            if name == GITIGNORE && kind.is_file() {
                ignore = read_gitignore(tree, &folder);
            }
            if name.as_encoded_bytes().starts_with(b".") || !scope.touches(&folder.join(&name)) {
                continue;
            }
            if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
                // Some file systems omit the type in directory entries.
                kind = entry.metadata().map_or(kind, |metadata| metadata.file_type());
            }
            entries.push((name, kind));
        }
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Ok(Self { folder, entries: entries.into_iter(), ignore })
    }
}

/// The rules of a folder's `.read_gitignore`, parsed as git does.
fn read_gitignore(tree: &Tree, folder: &Path) -> IgnoreRules {
    let path = folder.join(GITIGNORE);
    let mut rules = IgnoreRules::default();
    let mut contents = Vec::new();
    let read = tree.read_into(&path, &mut contents).map_err(|error| error.to_string());
    let result = read.and_then(|_| {
        // As in git, which appends a `\n` to the last line, and strips a `\r` only before a `\n`.
        contents.push(b'\n');
        let result = rules.add_patterns_buffer(&contents, &path, None, Ignore::default());
        result.map_err(|error| error.to_string())
    });
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), error, "cannot read a .gitignore; its rules are \
            not applied");
    }
    rules
}

fn with_slashes(path: &Path) -> Option<String> {
    let names = path.components().map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    Some(names.collect::<Option<Vec<_>>>()?.join("/"))
}

#[cfg(test)]
mod git;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::sample::{LIMITS, Sample, no_cancellation};

    fn walk(sample: &Sample, path: &str, glob: &str) -> Vec<String> {
        let tree = sample.tree();
        let scope = Scope::parse(&tree, path, glob, &LIMITS).unwrap();
        Walk::new(&tree, &scope, &no_cancellation())
            .map(|entry| match entry.unwrap() {
                Entry::File(path) => path,
                Entry::Unreadable => "?".to_owned(),
            })
            .collect()
    }

    fn sample() -> Sample {
        Sample::of(&[
            ("b.rs", ""),
            ("a/z.rs", ""),
            ("a/sub/y.rs", ""),
            ("a-b/x.rs", ""),
            ("a.rs", ""),
            ("README.md", ""),
        ])
    }

    #[test]
    fn files_are_ordered_by_path_name_by_name() {
        assert_eq!(
            walk(&sample(), "", ""),
            ["README.md", "a/sub/y.rs", "a/z.rs", "a-b/x.rs", "a.rs", "b.rs"]
        );
    }

    #[test]
    fn a_folder_restricts_the_walk() {
        assert_eq!(walk(&sample(), "a", ""), ["a/sub/y.rs", "a/z.rs"]);
        assert_eq!(walk(&sample(), "a/sub", ""), ["a/sub/y.rs"]);
    }

    #[test]
    fn a_folder_is_accepted_only_by_its_canonical_path() {
        let sample = sample();
        sample.link("link", "a/sub");
        let scope = Scope::parse(&sample.tree(), "link", "", &LIMITS).unwrap_err();
        let problem = "`path`: leads through a symbolic link; it must be written as `a/sub`";
        assert_eq!(scope.to_string(), problem);
    }

    /// Regression: the message advised an empty path in quotes.
    #[test]
    fn a_link_to_the_root_is_rejected_with_advice_to_leave_the_path_empty() {
        let sample = sample();
        sample.link("root", ".");
        sample.link("a/up", "..");
        let problem = "`path`: leads through a symbolic link to the root; it must be left empty";
        for path in ["root", "a/up"] {
            let error = Scope::parse(&sample.tree(), path, "", &LIMITS).unwrap_err();
            assert_eq!(error.to_string(), problem, "{path}");
        }
        let error = Scope::parse(&sample.tree(), "root/a", "", &LIMITS).unwrap_err();
        let problem = "`path`: leads through a symbolic link; it must be written as `a`";
        assert_eq!(error.to_string(), problem);
        assert!(
            !walk(&sample, "", "").contains(&"?".to_owned()),
            "a link to the root leads into the tree"
        );
    }

    #[test]
    fn a_glob_without_a_slash_matches_names_and_one_with_a_slash_matches_paths() {
        let rust = ["a/sub/y.rs", "a/z.rs", "a-b/x.rs", "a.rs", "b.rs"];
        assert_eq!(walk(&sample(), "", "*.rs"), rust);
        assert_eq!(walk(&sample(), "", "**/*.rs"), rust);
        assert_eq!(walk(&sample(), "", "a/*.rs"), ["a/z.rs"]);
        assert_eq!(walk(&sample(), "", "/*.rs"), ["a.rs", "b.rs"]);
        assert_eq!(walk(&sample(), "a", "**/{x,y}.rs"), ["a/sub/y.rs"]);
        assert!(walk(&sample(), "", "*.none").is_empty());
    }

    /// Regression: these globs silently matched nothing.
    #[test]
    fn a_leading_dot_slash_anchors_a_glob_and_a_trailing_slash_selects_a_folder() {
        let all = walk(&sample(), "", "");
        assert_eq!(walk(&sample(), "", "./**"), all);
        assert_eq!(walk(&sample(), "", "./"), all);
        assert_eq!(walk(&sample(), "", "/"), all);
        assert_eq!(walk(&sample(), "", "./*.rs"), ["a.rs", "b.rs"]);
        assert_eq!(walk(&sample(), "", "a/"), ["a/sub/y.rs", "a/z.rs"]);
        assert_eq!(walk(&sample(), "", "sub/"), ["a/sub/y.rs"]);
        assert_eq!(walk(&sample(), "", "./sub/"), [""; 0]);
        assert_eq!(walk(&sample(), "", "a/s*/"), ["a/sub/y.rs"]);
    }

    #[test]
    fn ignored_files_are_skipped_even_without_a_git_repository() {
        let sample = Sample::of(&[
            (".gitignore", "\u{feff}*.log\ntarget/\n/only-here\n[\n"),
            ("a.log", ""),
            ("a.rs", ""),
            ("only-here", ""),
            ("target/built.rs", ""),
            ("sub/.gitignore", "!keep.log\n/own\r\n"),
            ("sub/keep.log", ""),
            ("sub/drop.log", ""),
            ("sub/only-here", ""),
            ("sub/own", ""),
            ("sub/deep/own", ""),
        ]);
        assert_eq!(
            walk(&sample, "", ""),
            ["a.rs", "sub/deep/own", "sub/keep.log", "sub/only-here"]
        );
        assert_eq!(walk(&sample, "sub/deep", ""), ["sub/deep/own"]);
        assert!(
            walk(&sample, "target", "").is_empty(),
            "an ignored folder stays ignored when named"
        );
    }

    #[test]
    fn hidden_files_and_the_git_folder_are_skipped() {
        let sample =
            Sample::of(&[("a", ""), (".env", ""), (".git/config", ""), (".github/b.yml", "")]);
        assert_eq!(walk(&sample, "", ""), ["a"]);
    }

    #[test]
    fn links_are_not_followed_and_only_broken_ones_are_unreadable() {
        let sample = Sample::of(&[("a", ""), ("sub/b", "")]);
        sample.link("in", "sub");
        sample.link("in-file", "a");
        assert_eq!(walk(&sample, "", ""), ["a", "sub/b"]);
        sample.link("out", "../outside");
        sample.link("out-file", "../outside/secret.txt");
        sample.link("dangling", "nowhere");
        sample.link("loop", "loop");
        assert_eq!(walk(&sample, "", ""), ["a", "?", "?", "?", "?", "sub/b"]);
    }

    #[test]
    fn a_gitignore_that_is_a_fifo_or_a_link_is_skipped() {
        let sample = Sample::of(&[("a", ""), ("sub/b", ""), ("outer/c", "")]);
        sample.fifo(".gitignore");
        sample.link("sub/.gitignore", "/dev/zero");
        assert_eq!(walk(&sample, "", ""), ["a", "outer/c", "sub/b"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_name_that_is_not_utf_8_is_unreadable() {
        use std::os::unix::ffi::OsStringExt as _;

        let sample = Sample::of(&[("a", "")]);
        let name = OsString::from_vec(b"b\xff".to_vec());
        std::fs::write(sample.path().join("tree").join(name), "").unwrap();
        assert_eq!(walk(&sample, "", ""), ["a", "?"]);
    }

    #[test]
    fn a_cancelled_walk_fails() {
        let sample = sample();
        let tree = sample.tree();
        let scope = Scope::parse(&tree, "", "", &LIMITS).unwrap();
        let token = CancellationToken::new();
        token.cancel();
        let cancellation = Cancellation::new(token, Instant::now() + Duration::from_secs(60));
        let first = Walk::new(&tree, &scope, &cancellation).next().unwrap();
        assert!(matches!(first, Err(CodeError::Cancelled)));
    }
}
