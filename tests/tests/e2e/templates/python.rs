use std::process::Command;

use drawbridge_tests::{
    ServiceProcess, TestIssuer, TestMesh, python_sdk, python_wheels, repository, serve_conformance,
};

use super::{NewService, check_rooms, start};
use crate::{auth::rpcs::check_rejections, mcp::conformance::run_suite};

/// Why some checks of the official suite fail.
const SAME_CONTRACT: &str = "the service in Python does not change its contract while it runs";
/// Checks of the official suite that fail, each with the reason.
const EXPECTED: [(&str, &str); 2] = [
    ("server-stateless:sep-2575-server-sends-prompts-list-changed-on-subscription", SAME_CONTRACT),
    ("server-stateless:sep-2575-server-sends-tools-list-changed-on-subscription", SAME_CONTRACT),
];

#[tokio::test]
async fn a_new_service_in_python_builds_passes_its_tests_and_serves_ai_clients() {
    let service = NewService::write("python");
    let wheels = python_wheels();
    service.build(&[("PIP_NO_INDEX", "1".as_ref()), ("PIP_FIND_LINKS", &wheels)]);
    check_rooms(&service, || service.start_command()).await;
}

/// Runs a tool of the package's environment in the folder of the package.
fn check(arguments: &[&str]) {
    let mut command = Command::new(python_sdk());
    command.args(arguments).current_dir(repository().join("sdk/python"));
    let output = command.output().expect("python");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&text));
}

#[test]
fn the_package_for_python_passes_its_tests() {
    check(&["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
}

#[test]
fn the_package_for_python_has_no_type_errors() {
    check(&["-m", "mypy", "--cache-dir", "/dev/null", "--package", "drawbridge"]);
}

fn conformance() -> Command {
    let mut command = Command::new(python_sdk());
    command.arg(repository().join("tests/services/python/conformance_service.py"));
    command
}

#[tokio::test]
async fn every_rpc_of_a_service_in_python_rejects_a_missing_or_forged_transaction_token() {
    let (keys, untrusted) =
        (TestIssuer::with_every_algorithm().await, TestIssuer::with_every_algorithm().await);
    let process = start(conformance(), &keys.url.join("/jwks").expect("a URL"));
    let (rpcs, rejected) = check_rejections(&process.url("http"), "test", &keys, &untrusted).await;
    assert!(rpcs.len() > 40, "{rpcs:?}");
    assert_eq!(rejected, rpcs.len() * 13);
}

async fn check_suite(revision: &str, expected: &[(&str, &str)]) {
    let mesh = TestMesh::with(serve_conformance).await;
    let process: ServiceProcess = start(conformance(), &mesh.transaction_keys());
    let edge = mesh.edge(&[("test", &process.url("http"))], |_| {}).await;
    run_suite(&mesh, &edge, &["--requirements", revision], expected).await;
}

#[tokio::test]
async fn a_service_in_python_passes_the_suite_for_2025_11_25() {
    check_suite("2025-11-25", &[]).await;
}

#[tokio::test]
async fn a_service_in_python_passes_the_suite_for_2026_07_28() {
    check_suite("2026-07-28", &EXPECTED).await;
}
