//! Compares the walk with git: the walk must return exactly what `git ls-files` lists.

use std::{fs, path::Path, process::Command};

use super::*;
use crate::sample::{LIMITS, Sample, no_cancellation};

/// Names that exercise the patterns below: case, white space, brackets, braces, and depth.
const FILES: &[&str] = &[
    "a",
    "a.log",
    "A.LOG",
    "ab",
    "abc",
    "b.txt",
    "b.txt ",
    "b.txt\t",
    "{a,b}.log",
    "b.log",
    "x{1}",
    "x1",
    "x9",
    "xa",
    "xA",
    "x-",
    "x]",
    "x[",
    "x^",
    "x!",
    "#hash",
    "!bang",
    "$money",
    "back\\slash",
    "star*",
    "q?",
    "ä.txt",
    "dir/a",
    "dir/a.log",
    "dir/b.log",
    "dir/sub/a",
    "dir/sub/a.log",
    "dir/sub/deep/a.log",
    "dir/sub/deep/keep",
    "dir2/a",
    "other/dir/a",
    "other/dir/b.log",
    "other/x1",
    "a b/c d",
    "target/debug/x1",
    "src/target/x1",
    "src/main.rs",
    "docs/a.md",
    "docs/sub/b.md",
];

/// Each line is the text of one `.gitignore`; `\n`, `\r` and `\t` are written as in Rust. `d**/a`
/// and its like are absent: git 2.39 and before matches them by comparing unrelated pointers.
const PATTERNS: &str = include_str!("git/patterns.txt");

/// What `git ls-files` lists of a tree's files, without hidden ones.
fn git_ls_files(tree: &Path) -> Vec<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(tree).args([
        "-c",
        "core.excludesFile=/dev/null",
        "-c",
        "core.ignoreCase=false",
    ]);
    git.args(["ls-files", "-z", "--others", "--exclude-standard"]);
    let output = isolate(&mut git).output().expect("git, which this test compares with");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let git_ls_files = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<_> = git_ls_files.split_terminator('\0').map(str::to_owned).collect();
    files.retain(|path| path.split('/').all(|name| !name.starts_with('.')));
    files.sort();
    files
}

/// Isolates git from the user's settings.
fn isolate(git: &mut Command) -> &mut Command {
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CEILING_DIRECTORIES"] {
        git.env_remove(variable);
    }
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null")
}

fn walk_sorted(sample: &Sample) -> Vec<String> {
    let tree = sample.tree();
    let scope = Scope::parse(&tree, "", "", &LIMITS).unwrap();
    let cancellation = no_cancellation();
    let walk = Walk::new(&tree, &scope, &cancellation).map(|entry| match entry.unwrap() {
        Entry::File(path) => path,
        Entry::Unreadable => "?".to_owned(),
    });
    let mut files: Vec<_> = walk.collect();
    files.sort();
    files
}

fn repository() -> Sample {
    let files: Vec<_> = FILES.iter().map(|path| (*path, "")).collect();
    let sample = Sample::of(&files);
    let mut git = Command::new("git");
    git.args(["init", "--quiet"]).arg(sample.path().join("tree"));
    assert!(isolate(&mut git).status().expect("git").success());
    sample
}

fn unescaped(line: &str) -> String {
    line.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t")
}

#[test]
fn a_gitignore_ignores_what_git_ignores() {
    let sample = repository();
    let mut differ = Vec::new();
    let mut ignoring = 0;
    let patterns: Vec<_> = PATTERNS.lines().collect();
    for line in &patterns {
        sample.write(".gitignore", unescaped(line).as_bytes());
        let (git, walk) = (git_ls_files(&sample.path().join("tree")), walk_sorted(&sample));
        ignoring += usize::from(git.len() < FILES.len());
        if git != walk {
            let only_git: Vec<_> = git.iter().filter(|path| !walk.contains(path)).collect();
            let only_walk: Vec<_> = walk.iter().filter(|path| !git.contains(path)).collect();
            differ.push(format!(
                "{line:?}: only git lists {only_git:?}, only the walk {only_walk:?}"
            ));
        }
    }
    assert!(patterns.len() >= 200, "{} patterns", patterns.len());
    assert!(ignoring > 120, "only {ignoring} patterns ignore anything");
    assert!(
        differ.is_empty(),
        "{} of {} differ\n{}",
        differ.len(),
        patterns.len(),
        differ.join("\n")
    );
}

#[test]
fn nested_gitignores_decide_as_in_git() {
    for (outer, inner) in [
        ("*.log", "!a.log"),
        ("dir/sub/*", "!sub/"),
        ("dir/*", "!a"),
        ("/dir/", "!a"),
        ("", "/a"),
        ("", "sub/"),
        ("!a.log", "*.log"),
        ("a", "!/a"),
        ("**/deep", "!sub/deep"),
        ("*\n!*/\n!*.log", "b.log"),
    ] {
        let sample = repository();
        sample.write(".gitignore", outer.as_bytes());
        sample.write("dir/.gitignore", inner.as_bytes());
        let tree = sample.path().join("tree");
        assert_eq!(walk_sorted(&sample), git_ls_files(&tree), "{outer:?} with {inner:?} in dir");
        fs::remove_file(tree.join(".gitignore")).unwrap();
        assert_eq!(walk_sorted(&sample), git_ls_files(&tree), "{inner:?} in dir");
    }
}
