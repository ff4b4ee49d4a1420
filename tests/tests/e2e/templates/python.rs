use std::process::Command;

use drawbridge_tests::{python_sdk, python_wheels, repository};

use super::{NewService, check_conformance_rejections, check_rooms, check_suite};
use crate::mcp::conformance::{OF_2025_06_18, OF_2025_11_25, OF_2026_07_28};

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
    check_conformance_rejections(conformance()).await;
}

#[tokio::test]
async fn a_service_in_python_passes_the_suite_for_2025_06_18() {
    check_suite(conformance(), &OF_2025_06_18).await;
}

#[tokio::test]
async fn a_service_in_python_passes_the_suite_for_2025_11_25() {
    check_suite(conformance(), &OF_2025_11_25).await;
}

#[tokio::test]
async fn a_service_in_python_passes_the_suite_for_2026_07_28() {
    check_suite(conformance(), &OF_2026_07_28).await;
}
