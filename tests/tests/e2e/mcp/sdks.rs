//! The official SDKs as clients of one service: what is told on the way arrives before the result, what is
//! cancelled stops, and what is asked is answered.

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

/// Steps of SlowWork in the 300 milliseconds that each client has it work.
const STEPS: usize = 15;
/// Calls that each client cancels: one on a stream, and one whose client hears nothing until its end.
const CANCELLED: u32 = 2;
/// The longest a client may take with all of it.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

fn python_client(protocol: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(repository().join("tests/clients/python/interact.py")).args(protocol);
    command
}

fn typescript_client() -> Command {
    // The script looks for the packages where the set-up has put them.
    node_modules();
    let mut command = Command::new("node");
    command.arg(repository().join("tests/clients/typescript/interact.mjs"));
    command
}

/// What every client does, whatever its language and revision.
fn check_seen(seen: &Value, protocol: &str) {
    assert_eq!(seen["protocolVersion"], protocol);
    let mut events: Vec<_> = (0..STEPS).map(|step| format!("step {step}")).collect();
    events.push("worked".to_owned());
    assert_eq!(seen["events"], json!(events));
    assert_eq!(seen["cancelled"], json!([true, true]));
    assert_eq!(seen["asked"], json!(["Who are you?", "What is 6 times 7?", "roots"]));
    let content = r#"{"email":"ada@example.com","username":"ada"}"#;
    let answers = [
        &format!("User response: action=accept, content={content}"),
        "LLM response: 42",
        "file:///work",
    ];
    assert_eq!(seen["answers"], json!(answers));
}

/// What the service has seen. The client has to be there still: one that goes cancels everything.
async fn check_service(service: &Conformance) {
    let stopped = async {
        while service.cancelled.load(Ordering::Relaxed) < CANCELLED {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let stopped = timeout(Duration::from_secs(5), stopped).await;
    let (cancelled, finished) = (&service.cancelled, &service.finished);
    assert!(stopped.is_ok(), "of {CANCELLED} cancelled calls the service stopped {cancelled:?}");
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
    let mut said = String::new();
    let mut stdout = BufReader::new(client.stdout.take().expect("its output"));
    timeout(CLIENT_TIMEOUT, stdout.read_line(&mut said))
        .await
        .expect("a client that ends")
        .expect("a line");
    let seen: Option<Value> = serde_json::from_str(&said).ok();
    if let Some(seen) = &seen {
        check_seen(seen, protocol);
        check_service(&service).await;
    }
    let output = timeout(CLIENT_TIMEOUT, client.wait_with_output()).await;
    let output = output.expect("a client that ends").expect("the client");
    assert!(
        seen.is_some() && output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn check_rust(lifecycle: ClientLifecycleMode, protocol: &str) {
    let mesh = TestMesh::with(serve_conformance).await;
    let (service, _hosted, edge) = mesh.conformance(|_| {}).await;
    let alice = mesh.client("alice").await;
    let client = rust::connect(&edge.url, alice.token(), lifecycle).await;
    let seen = timeout(CLIENT_TIMEOUT, rust::interact(&client)).await.expect("a client that ends");
    check_seen(&seen, protocol);
    check_service(&service).await;
    client.cancel().await.expect("a client that ends");
}

#[tokio::test]
async fn the_python_sdk_reports_cancels_and_answers_in_the_newest_revision() {
    // It asks the server which revisions there are.
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
