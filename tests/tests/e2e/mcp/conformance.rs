//! The official conformance suite, against the real edge with real authentication.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use drawbridge_tests::{Edge, TestMesh, conformance_suite, repository, serve_conformance};
use serde::Deserialize;
use tokio::process::Command;

/// Checks that fail for an external reason, each with that reason: `scenario:check`. A check that
/// passes is stale and fails the run.
const EXPECTED: [(&str, &str); 0] = [];

/// Scenarios that the suite runs without scoring them, and that this edge must pass.
const REQUIRED_UNSCORED: [&str; 4] = [
    "json-schema-2020-12",
    "http-header-validation",
    "http-custom-header-server-validation",
    "server-session-lifecycle",
];

/// The arguments of the suite for each revision.
pub(crate) const OF_2025_06_18: [&str; 4] = ["--suite", "all", "--spec-version", "2025-06-18"];
pub(crate) const OF_2025_11_25: [&str; 2] = ["--requirements", "2025-11-25"];
pub(crate) const OF_2026_07_28: [&str; 2] = ["--requirements", "2026-07-28"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    id: String,
    status: String,
    error_message: Option<String>,
}

async fn run(arguments: &[&str]) {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_service, edge) = mesh.conformance_with_rollouts().await;
    run_suite(&mesh, &edge, arguments, &EXPECTED).await;
}

/// Runs the suite against an edge. `expected` are checks that fail, each with the reason.
#[expect(clippy::print_stdout, reason = "the counts are the report of the run")]
pub(crate) async fn run_suite(
    mesh: &TestMesh,
    edge: &Edge,
    arguments: &[&str],
    expected: &[(&str, &str)],
) {
    let token = mesh.client("alice").await.token().to_owned();
    let out = tempfile::tempdir().expect("a folder");
    let (node, suite) = conformance_suite();
    let bearer = repository().join("tests/conformance/bearer.mjs");
    let output = Command::new(node)
        .arg(suite)
        .args(["server", "--url", edge.url.as_str(), "--timeout", "10000", "-o"])
        .arg(out.path())
        .args(arguments)
        .env("NODE_OPTIONS", format!("--import {}", bearer.display()))
        .env("BEARER", token)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the suite");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let not_scored = text.split("Not scored").nth(1).unwrap_or_default();
    let mut passed = 0;
    let mut failures = Vec::new();
    let mut stale: BTreeMap<_, _> = expected.iter().copied().collect();
    for (scenario, checks) in results(out.path()) {
        let is_required = REQUIRED_UNSCORED.contains(&scenario.as_str())
            || !not_scored.contains(&format!(" {scenario} "));
        for check in checks {
            let name = format!("{scenario}:{}", check.id);
            match check.status.as_str() {
                "SUCCESS" => passed += 1,
                // A violated SHOULD of the specification is a warning.
                "FAILURE" | "WARNING" if is_required && stale.remove(name.as_str()).is_none() => {
                    failures.push(format!("{name}: {}", check.error_message.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }
    assert!(
        passed > 40,
        "the suite did not run: {text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let failures = failures.join("\n");
    assert!(failures.is_empty(), "{arguments:?}: {passed} checks passed, but:\n{failures}");
    assert!(stale.is_empty(), "these pass now: {stale:?}");
    println!("conformance {arguments:?}: {passed} checks passed");
}

/// The checks of each scenario.
fn results(folder: &Path) -> Vec<(String, Vec<Check>)> {
    let mut results = Vec::new();
    for entry in fs::read_dir(folder).expect("results") {
        let path = entry.expect("a folder").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        // `server-<scenario>-2026-11-23T06-12-17-861Z`
        let scenario =
            name.strip_prefix("server-").and_then(|rest| rest.get(..rest.len().checked_sub(25)?));
        let scenario = scenario.unwrap_or_else(|| panic!("unexpected folder {name}")).to_owned();
        let checks = fs::read_to_string(path.join("checks.json")).expect("checks");
        let checks =
            serde_json::from_str(&checks).unwrap_or_else(|error| panic!("{name}: {error}"));
        results.push((scenario, checks));
    }
    results.sort_by(|one, other| one.0.cmp(&other.0));
    results
}

#[tokio::test]
async fn the_suite_passes_for_2025_06_18() {
    run(&OF_2025_06_18).await;
}

#[tokio::test]
async fn the_suite_passes_for_2025_11_25() {
    run(&OF_2025_11_25).await;
}

#[tokio::test]
async fn the_suite_passes_for_2026_07_28() {
    run(&OF_2026_07_28).await;
}
