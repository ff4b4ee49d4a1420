//! What `deploy/` passes to services: the chart, the Compose file, the variables of the units.

use std::{collections::BTreeMap, fs, path::Path, process::Command as Process};

use clap::{ArgAction, Command};
use serde::Deserialize;

use super::help::services;
use crate::{REPOSITORY, text};

/// Variables that the chart sets for every tool service, although not all of them need it.
const NOT_EVERYWHERE: [&str; 1] = ["DRAWBRIDGE_CODE_AUTH_URL"];

/// A process as a deployment starts it.
#[derive(Debug, Deserialize)]
struct Deployed {
    place: String,
    service: String,
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
}

/// Checks everything in `deploy/`, and returns what is passed to services.
fn deployed() -> Vec<Deployed> {
    let output = tempfile::tempdir().expect("a folder");
    let script = Path::new(REPOSITORY).join("tests/deploy/check.sh");
    let checked = Process::new("bash").arg(script).arg(output.path()).output().expect("bash");
    assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
    let found = fs::read(output.path().join("processes.json")).expect("the processes");
    serde_json::from_slice(&found).expect("JSON")
}

/// A variable as an argument of the command line.
fn argument(command: &Command, name: &str, value: &str) -> Result<Option<String>, String> {
    let is_named = |variable: Option<&std::ffi::OsStr>| variable.is_some_and(|it| it == name);
    let found = command.get_arguments().find(|argument| is_named(argument.get_env()));
    let found = found.ok_or_else(|| format!("there is no variable {name}"))?;
    let long = found.get_long().ok_or_else(|| format!("{name} is not an option"))?;
    match found.get_action() {
        ArgAction::SetTrue if value == "true" => Ok(Some(format!("--{long}"))),
        ArgAction::SetTrue => Ok(None),
        _ => Ok(Some(format!("--{long}={value}"))),
    }
}

fn parse(deployed: &Deployed, command: Command) -> Result<(), String> {
    let mut words = vec![deployed.service.clone()];
    words.extend(deployed.arguments.iter().cloned());
    for (name, value) in &deployed.variables {
        if !NOT_EVERYWHERE.contains(&name.as_str()) {
            words.extend(argument(&command, name, value)?);
        }
    }
    command.try_get_matches_from(words).map(drop).map_err(|error| error.to_string())
}

#[test]
fn the_chart_compose_and_units_are_valid_and_pass_what_services_accept() {
    let (mut parsed, mut problems) = (0, Vec::new());
    for one in deployed() {
        let command = services().into_iter().find(|(name, _)| *name == one.service);
        // The chart takes tool services that this repository does not have.
        let Some((_, command)) = command else { continue };
        parsed += 1;
        if let Err(problem) = parse(&one, command) {
            problems.push(format!("{}: {problem}", one.place));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(parsed >= 15, "{parsed}");
}

/// Runs a part of `tests/release.sh` in a folder; the error output if it fails.
fn release(part: &str, root: &Path) -> Result<(), String> {
    let script = Path::new(REPOSITORY).join("tests/release.sh");
    let output = Process::new("bash").arg(script).arg(part).arg(root).output().expect("bash");
    if output.status.success() { Ok(()) } else { Err(text(&output.stderr).to_owned()) }
}

#[test]
fn a_release_with_two_versions_is_refused() {
    let files = ["Cargo.toml", "deploy/helm/drawbridge/Chart.yaml", "sdk/python/pyproject.toml"];
    let copy = |folder: &Path| {
        for file in files {
            let to = folder.join(file);
            fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            fs::copy(Path::new(REPOSITORY).join(file), to).expect("a file");
        }
    };
    let same = tempfile::tempdir().expect("a folder");
    copy(same.path());
    assert_eq!(release("versions", same.path()), Ok(()));
    let version = env!("CARGO_PKG_VERSION");
    for (file, named) in
        files.iter().zip(["the workspace 9.9.9", "Chart.yaml, version", "pyproject.toml"])
    {
        let folder = tempfile::tempdir().expect("a folder");
        copy(folder.path());
        let path = folder.path().join(file);
        let content = fs::read_to_string(&path).expect("a file");
        let changed = content.replacen(version, "9.9.9", 1);
        assert_ne!(content, changed, "{file} names no version");
        fs::write(&path, changed).expect("a file");
        let error = release("versions", folder.path()).expect_err(file);
        assert!(error.contains(named) && error.contains("9.9.9"), "{file}: {error}");
    }
}

#[test]
fn a_release_without_notes_and_tag_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let git = |arguments: &[&str]| {
        let user = ["-c", "user.name=Test", "-c", "user.email=test@acme.example"];
        let git = Process::new("git").args(user).args(arguments).current_dir(root).output();
        let git = git.expect("git");
        assert!(git.status.success(), "{arguments:?}: {}", text(&git.stderr));
    };
    fs::write(root.join("Cargo.toml"), "version = \"1.2.3\"\n").expect("a file");
    fs::write(root.join("CHANGELOG.md"), "## Unreleased\n").expect("a file");
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "first"]);
    let error = release("notes", root).expect_err("nothing is there");
    let missing = ["no section `## 1.2.3`", "the tag v1.2.3", "the tag sdk/go/v1.2.3"];
    assert!(missing.iter().all(|it| error.contains(it)), "{error}");
    fs::write(root.join("CHANGELOG.md"), "## 1.2.3 - 2026-12-01\n").expect("a file");
    let error = release("notes", root).expect_err("a change is not committed");
    assert!(error.contains("not committed") && !error.contains("section"), "{error}");
    git(&["commit", "--quiet", "--all", "--message", "release"]);
    git(&["tag", "v1.2.3"]);
    git(&["tag", "sdk/go/v1.2.3"]);
    assert_eq!(release("notes", root), Ok(()));
}
