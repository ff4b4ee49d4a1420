//! The walk over the tree's files.
//!
//! It walks by itself because ready-made walkers open ignore files by plain paths, where a FIFO or a link
//! out of the tree named `.gitignore` would block or be followed.

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

/// One file that the walk comes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A regular file, by its path with `/`.
    File(String),
    /// What cannot be read: no regular file, a link that leads nowhere in the tree, a folder that cannot
    /// be opened, a name that is not UTF-8.
    Unreadable,
}

/// The files of a scope, by path, name by name. Hidden files, what the tree's `.gitignore` files exclude and
/// what may hold keys are left out; links are not followed, as what they lead to in the tree is walked anyway.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    scope: &'a Scope,
    cancellation: &'a Cancellation,
    // INVARIANT: every level's folder lies in the folder of the level below it in the stack.
    levels: Vec<Level>,
    started: bool,
}

/// A folder in the middle of its walk.
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
                tracing::debug!(%error, "a folder cannot be read");
                Some(Entry::Unreadable)
            }
        }
    }

    /// The next step: a file, or nothing when the step led to none.
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
        if self.ignored(&path, kind.is_dir()) || self.tree.is_secret(&path, kind.is_dir()) {
            return Some(None);
        }
        Some(if kind.is_dir() { self.enter(path) } else { self.file(&path, kind) })
    }

    /// The innermost `.gitignore` with a pattern that matches decides (gitignore(5)).
    fn ignored(&self, path: &Path, is_folder: bool) -> bool {
        let decided = self.levels.iter().rev().find_map(|level| {
            let inside = path.strip_prefix(&level.folder).ok()?.as_os_str().as_encoded_bytes();
            level.ignore.pattern_matching_relative_path(
                inside.into(),
                Some(is_folder),
                Case::Sensitive,
            )
        });
        decided.is_some_and(|rule| !rule.pattern.is_negative())
    }

    fn file(&self, path: &Path, kind: FileType) -> Option<Entry> {
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
                ignore = gitignore(tree, &folder);
            }
            if name.as_encoded_bytes().starts_with(b".") || !scope.touches(&folder.join(&name)) {
                continue;
            }
            if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
                // Some file systems tell the type only when asked for it.
                kind = entry.metadata().map_or(kind, |metadata| metadata.file_type());
            }
            entries.push((name, kind));
        }
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Ok(Self { folder, entries: entries.into_iter(), ignore })
    }
}

/// The rules of a folder's `.gitignore`, read as git reads them.
fn gitignore(tree: &Tree, folder: &Path) -> IgnoreRules {
    let path = folder.join(GITIGNORE);
    let mut rules = IgnoreRules::default();
    let mut contents = Vec::new();
    let read = tree.read_into(&path, &mut contents).map_err(|error| error.to_string());
    let added = read.and_then(|_| {
        // As git does: it takes a `\r` away only before a `\n`, the one that it adds to the last line included.
        contents.push(b'\n');
        let added = rules.add_patterns_buffer(&contents, &path, None, Ignore::default());
        added.map_err(|error| error.to_string())
    });
    if let Err(error) = added {
        tracing::warn!(path = %path.display(), error, "a .gitignore is ignored: it cannot be read");
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
    use crate::sample::{LIMITS, Sample, waiting};

    fn walk(sample: &Sample, path: &str, glob: &str) -> Vec<String> {
        let tree = sample.tree();
        let scope = Scope::parse(&tree, path, glob, &LIMITS).unwrap();
        Walk::new(&tree, &scope, &waiting())
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
    fn files_come_by_path_name_by_name() {
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
    fn a_folder_is_named_by_its_own_name_alone() {
        let sample = sample();
        sample.link("link", "a/sub");
        let scope = Scope::parse(&sample.tree(), "link", "", &LIMITS).unwrap_err();
        let problem = "`path`: leads through a symbolic link; it must be written as `a/sub`";
        assert_eq!(scope.to_string(), problem);
    }

    /// The advice was to write nothing between quotes.
    #[test]
    fn a_link_to_the_root_is_refused_with_how_the_root_is_named() {
        let sample = sample();
        sample.link("root", ".");
        sample.link("a/up", "..");
        let problem = "`path`: leads through a symbolic link to the root; it must be left empty";
        for path in ["root", "a/up"] {
            let refused = Scope::parse(&sample.tree(), path, "", &LIMITS).unwrap_err();
            assert_eq!(refused.to_string(), problem, "{path}");
        }
        let refused = Scope::parse(&sample.tree(), "root/a", "", &LIMITS).unwrap_err();
        let problem = "`path`: leads through a symbolic link; it must be written as `a`";
        assert_eq!(refused.to_string(), problem);
        assert!(
            !walk(&sample, "", "").contains(&"?".to_owned()),
            "a link to the root leads into the tree"
        );
    }

    #[test]
    fn a_glob_without_a_slash_is_about_names_and_one_with_a_slash_about_paths() {
        let rust = ["a/sub/y.rs", "a/z.rs", "a-b/x.rs", "a.rs", "b.rs"];
        assert_eq!(walk(&sample(), "", "*.rs"), rust);
        assert_eq!(walk(&sample(), "", "**/*.rs"), rust);
        assert_eq!(walk(&sample(), "", "a/*.rs"), ["a/z.rs"]);
        assert_eq!(walk(&sample(), "", "/*.rs"), ["a.rs", "b.rs"]);
        assert_eq!(walk(&sample(), "a", "**/{x,y}.rs"), ["a/sub/y.rs"]);
        assert!(walk(&sample(), "", "*.none").is_empty());
    }

    /// These matched nothing, in silence.
    #[test]
    fn a_glob_may_begin_at_the_root_by_a_dot_and_name_a_folder_by_a_slash() {
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
    fn ignored_files_and_folders_are_left_out_without_a_git_repository() {
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
    fn hidden_files_and_gits_own_folder_are_left_out() {
        let sample =
            Sample::of(&[("a", ""), (".env", ""), (".git/config", ""), (".github/b.yml", "")]);
        assert_eq!(walk(&sample, "", ""), ["a"]);
    }

    #[test]
    fn links_are_not_followed_and_only_those_that_lead_nowhere_are_unreadable() {
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
    fn a_gitignore_that_would_block_or_leads_out_is_passed_over() {
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
    fn the_walk_fails_when_nobody_waits() {
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
