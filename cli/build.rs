//! Records the commit that `drawbridge` is built from, for `--version`, and embeds the files that
//! its commands write.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DRAWBRIDGE_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let from_env = env::var("DRAWBRIDGE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let version = match from_env.or_else(commit) {
        None => version,
        Some(commit) if is_release => format!("{version} ({commit})"),
        // A new commit does not rebuild a development binary, so it may contain later changes.
        Some(commit) => format!("{version} ({commit} or later, for development)"),
    };
    println!("cargo::rustc-env=DRAWBRIDGE_VERSION={version}");
    if is_release {
        follow_head();
    }
    embed("TEMPLATES", "templates", "templates.rs")?;
    embed("POLICIES", "../policies", "policies.rs")
}

/// Writes a constant with the UTF-8 files below `folder` to `OUT_DIR/file`: pairs of a path relative
/// to the folder, and the content.
fn embed(constant: &str, folder: &str, file: &str) -> io::Result<()> {
    println!("cargo::rerun-if-changed={folder}");
    let folder = Path::new(folder).canonicalize()?;
    let mut paths = Vec::new();
    list(&folder, &mut paths)?;
    paths.sort();
    let mut code = format!("pub(crate) const {constant}: &[(&str, &str)] = &[\n");
    for path in paths {
        let name = path.strip_prefix(&folder).unwrap_or(&path);
        // The content and not its path: a target folder may outlive the checkout that filled it.
        let content = fs::read_to_string(&path)?;
        writeln!(code, "    ({name:?}, {content:?}),").map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(file), code)
}

fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, paths)? } else { paths.push(path) }
    }
    Ok(())
}

/// The checked-out commit with its date. None if this is an archive unpacked inside another
/// checkout.
fn commit() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?).parent()?.canonicalize().ok()?;
    let checkout = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if root == checkout { git(&["log", "-1", "--format=%h %cs"]) } else { None }
}

/// Reruns this script when HEAD moves.
fn follow_head() {
    let head = git(&["rev-parse", "--symbolic-full-name", "HEAD"]);
    for name in ["HEAD", "packed-refs"].map(str::to_owned).into_iter().chain(head) {
        let path = git(&["rev-parse", "--git-path", &name]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// The output of git, or nothing outside a checkout or without git.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
