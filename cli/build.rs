//! Writes down from which commit `drawbridge` is built, for `--version`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DRAWBRIDGE_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let named = env::var("DRAWBRIDGE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let version = match named.or_else(commit) {
        None => version,
        Some(commit) if is_release => format!("{version} ({commit})"),
        // A commit alone is to rebuild nothing that is tested: it may be of a later one.
        Some(commit) => format!("{version} ({commit} or later, for development)"),
    };
    println!("cargo::rustc-env=DRAWBRIDGE_VERSION={version}");
    if is_release {
        follow_head();
    }
}

/// The commit that is checked out here, with its day. What was unpacked within another checkout is
/// not of it.
fn commit() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?).parent()?.canonicalize().ok()?;
    let checkout = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if root == checkout { git(&["log", "-1", "--format=%h %cs"]) } else { None }
}

/// Runs again when another commit is checked out or made.
fn follow_head() {
    let head = git(&["rev-parse", "--symbolic-full-name", "HEAD"]);
    for name in ["HEAD", "packed-refs"].map(str::to_owned).into_iter().chain(head) {
        let path = git(&["rev-parse", "--git-path", &name]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git says; nothing outside of a checkout, or without git.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
