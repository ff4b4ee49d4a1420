//! The official SDKs as clients of one service: progress precedes the result, cancelled calls stop,
//! and requests of tools are answered.

use std::{
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use drawbridge_tests::{
    TestMesh, conformance::Conformance, node_modules, python, repository, serve_conformance,
};
use rmcp::{model::ProtocolVersion, service::ClientLifecycleMode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::timeout,
};

mod rust;

/// Steps of SlowWork within the 300 milliseconds that each client requests.
const STEPS: usize = 15;
/// Calls that each client cancels: one on a stream, and one without any message before its end.
const CANCELLED: u32 = 2;
/// How long a client may take for everything.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

fn python_client(protocol: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(repository().join("tests/clients/python/interact.py")).args(protocol);
    command
}

fn typescript_client() -> Command {
    // The script needs the packages of the set-up.
    node_modules();
    let mut command = Command::new("node");
    command.arg(repository().join("tests/clients/typescript/interact.mjs"));
    command
}

/// Checks the report of a client, which is the same for every language and revision.
fn check_report(report: &Value, protocol: &str) {
    assert_eq!(report["protocolVersion"], protocol);
    let mut events: Vec<_> = (0..STEPS).map(|step| format!("step {step}")).collect();
    events.push("worked".to_owned());
    assert_eq!(report["events"], json!(events));
    assert_eq!(report["cancelled"], json!([true, true]));
    assert_eq!(report["asked"], json!(["Who are you?", "What is 6 times 7?", "roots"]));
    let content = r#"{"email":"ada@example.com","username":"ada"}"#;
    let answers = [
        &format!("User response: action=accept, content={content}"),
        "LLM response: 42",
        "file:///work",
    ];
    assert_eq!(report["answers"], json!(answers));
}

/// Checks what the service counted. The client must still be connected: its disconnect would cancel
/// all calls.
async fn check_service(service: &Conformance) {
    let stopped = async {
        while service.cancelled.load(Ordering::Relaxed) < CANCELLED {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let stopped = timeout(Duration::from_secs(5), stopped).await;
    let (cancelled, finished) = (&service.cancelled, &service.finished);
    assert!(stopped.is_ok(), "the service stopped {cancelled:?} of {CANCELLED} cancelled calls");
    assert_eq!(
        (cancelled.load(Ordering::Relaxed), finished.load(Ordering::Relaxed)),
        (CANCELLED, 1)
    );
}

async fn check_script(client: Command, protocol: &str) {
    let mesh = TestMesh::with(serve_conformance).await;
    let (service, _hosted, edge) = mesh.conformance(|_| {}).await;
    let alice = mesh.client("alice").await;
    let mut client = tokio::process::Command::from(client)
        .args(["--url", edge.url.as_str(), "--token", alice.token()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the client");
    let mut line = String::new();
    let mut stdout = BufReader::new(client.stdout.take().expect("its output"));
    timeout(CLIENT_TIMEOUT, stdout.read_line(&mut line))
        .await
        .expect("a client that ends")
        .expect("a line");
    let report: Option<Value> = serde_json::from_str(&line).ok();
    if let Some(report) = &report {
        check_report(report, protocol);
        check_service(&service).await;
    }
    let output = timeout(CLIENT_TIMEOUT, client.wait_with_output()).await;
    let output = output.expect("a client that ends").expect("the client");
    assert!(
        report.is_some() && output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn check_rust(lifecycle: ClientLifecycleMode, protocol: &str) {
    let mesh = TestMesh::with(serve_conformance).await;
    let (service, _hosted, edge) = mesh.conformance(|_| {}).await;
    let alice = mesh.client("alice").await;
    let client = rust::connect(&edge.url, alice.token(), lifecycle).await;
    let report = timeout(CLIENT_TIMEOUT, rust::interact(&client)).await;
    let report = report.expect("a client that ends");
    check_report(&report, protocol);
    check_service(&service).await;
    client.cancel().await.expect("a client that ends");
}

#[tokio::test]
async fn the_python_sdk_reports_cancels_and_answers_in_the_newest_revision() {
    // It discovers the revisions of the server.
    check_script(python_client(&[]), "2026-07-28").await;
}

#[tokio::test]
async fn the_python_sdk_reports_cancels_and_answers_in_an_older_revision() {
    check_script(python_client(&["--protocol", "2025-11-25"]), "2025-11-25").await;
}

#[tokio::test]
async fn the_typescript_sdk_reports_cancels_and_answers() {
    check_script(typescript_client(), "2025-11-25").await;
}

#[tokio::test]
async fn the_rust_sdk_reports_cancels_and_answers_in_the_newest_revision() {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    check_rust(ClientLifecycleMode::Discover { preferred_versions }, "2026-07-28").await;
}

#[tokio::test]
async fn the_rust_sdk_reports_cancels_and_answers_in_an_older_revision() {
    check_rust(ClientLifecycleMode::Initialize, "2025-11-25").await;
}
