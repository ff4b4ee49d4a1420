use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use drawbridge_tests::{go_modules, repository};

use super::{NewService, check_conformance_rejections, check_rooms, check_suite};
use crate::mcp::conformance::{OF_2025_06_18, OF_2025_11_25, OF_2026_07_28};

#[tokio::test]
async fn a_new_service_in_go_builds_passes_its_tests_and_serves_ai_clients() {
    let service = NewService::write("go");
    service.build(&[("GOPROXY", Path::new("off")), ("GOMODCACHE", &go_modules())]);
    check_rooms(&service, || service.start_command()).await;
}

/// Runs a command of Go in a folder, and returns what it printed.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    command.envs([("GOPROXY", Path::new("off")), ("GOMODCACHE", &go_modules())]);
    let output = command.stdin(Stdio::null()).output().expect("Go");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// The module for services, and the one that traces them.
const MODULES: [&str; 2] = ["drawbridge", "drawbridgeotel"];

/// The folder of a module.
fn folder(module: &str) -> PathBuf {
    let sdk = repository().join("sdk/go");
    if module == MODULES[0] { sdk } else { sdk.join(module) }
}

#[test]
fn the_modules_for_go_pass_their_tests() {
    for module in MODULES {
        let tested = run(&folder(module), "go", &["test", "./..."]);
        assert!(tested.contains(&format!("ok  \tdrawbridge.dev/sdk/go/{module}\t")), "{tested}");
    }
}

#[test]
fn the_modules_for_go_are_formatted_and_vetted() {
    for folder in ["sdk/go", "tests/services/go"].map(|folder| repository().join(folder)) {
        assert_eq!(run(&folder, "gofmt", &["-l", "."]), "");
    }
    for module in MODULES {
        run(&folder(module), "go", &["vet", "./..."]);
    }
}

/// The service of the conformance suite, built outside of the sources.
static CONFORMANCE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-conformance");
    fs::create_dir_all(&folder).expect("a folder");
    let (source, root) = (repository().join("tests/services/go"), repository());
    for entry in fs::read_dir(source).expect("the service") {
        let entry = entry.expect("a file");
        if entry.file_type().expect("a type").is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("a file");
        }
    }
    let replace = format!("-replace=drawbridge.dev/sdk/go={}", root.join("sdk/go").display());
    let protos = root.join("tests/proto").display().to_string();
    run(&folder, "go", &["mod", "edit", &replace]);
    run(&folder, "go", &["tool", "drawbridge-gen", "-I", &protos, "conformance.proto"]);
    run(&folder, "go", &["vet", "."]);
    run(&folder, "go", &["build", "-o", "service"]);
    folder.join("service")
});

fn conformance() -> Command {
    Command::new(&*CONFORMANCE)
}

#[tokio::test]
async fn every_rpc_of_a_service_in_go_rejects_a_missing_or_forged_transaction_token() {
    check_conformance_rejections(conformance()).await;
}

#[tokio::test]
async fn a_service_in_go_passes_the_suite_for_2025_06_18() {
    check_suite(conformance(), &OF_2025_06_18).await;
}

#[tokio::test]
async fn a_service_in_go_passes_the_suite_for_2025_11_25() {
    check_suite(conformance(), &OF_2025_11_25).await;
}

#[tokio::test]
async fn a_service_in_go_passes_the_suite_for_2026_07_28() {
    check_suite(conformance(), &OF_2026_07_28).await;
}
