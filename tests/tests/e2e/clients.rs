//! Real MCP clients: the official SDKs do the whole flow, from the first 401 to an answer.

use std::process::Command;

use drawbridge_tests::{TestMesh, node_modules, python, repository};
use serde_json::Value;
use tokio::process::Command as AsyncCommand;

/// What a person would do first: register, sign in, list, call, read.
const STEPS: [&str; 7] = [
    "POST /mcp 401",
    "GET /.well-known/oauth-protected-resource/mcp 200",
    "GET /.well-known/oauth-authorization-server 200",
    "POST /register 201",
    "GET /authorize 200",
    "POST /authorize 303",
    "POST /token 200",
];

fn python_flow() -> Command {
    let mut command = Command::new(python());
    command.arg(repository().join("tests/clients/python/flow.py"));
    command
}

fn typescript_flow() -> Command {
    // The script looks for the packages where the set-up has put them.
    node_modules();
    let mut command = Command::new("node");
    command.arg(repository().join("tests/clients/typescript/flow.mjs"));
    command
}

/// Runs the whole flow as `user` and returns what the client saw.
async fn run(flow: Command, mesh: &TestMesh, user: &str, protocol: &str) -> Value {
    let output = AsyncCommand::from(flow)
        .args(["--url", mesh.mesh.mcp_url.as_str(), "--username", user, "--password", user])
        .args(["--protocol", protocol])
        .args([
            "--call",
            "code_search",
            r#"{"query":"A needle for the tests of real clients.","path":"tests"}"#,
        ])
        .args(["--read", "code://rustfmt.toml"])
        .output()
        .await
        .expect("the client");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

fn check_steps(seen: &Value) {
    let mut steps = seen["steps"].as_array().expect("steps").iter().filter_map(Value::as_str);
    for step in STEPS {
        assert!(steps.any(|seen| seen == step), "{step} is missing, or comes too soon: {seen:#}");
    }
}

/// A needle for the tests of real clients.
fn check_alice(seen: &Value, protocol: &str) {
    check_steps(seen);
    assert_eq!(seen["protocolVersion"], protocol);
    assert_eq!(seen["tools"], serde_json::json!(["code_list_files", "code_search"]));
    assert_eq!(seen["resourceTemplates"][0], "code://{+path}");
    let call = &seen["calls"][0];
    assert_eq!(call["isError"], false, "{seen:#}");
    let matches = call["structured"]["matches"].as_array().expect("matches");
    let lines: Vec<_> = matches.iter().filter_map(|found| found["line"].as_str()).collect();
    assert!(lines.contains(&"/// A needle for the tests of real clients."), "{lines:?}");
    assert!(matches.iter().all(|found| found["path"] == "tests/tests/e2e/clients.rs"), "{matches:?}");
    let text: Value = serde_json::from_str(call["text"].as_str().expect("text")).expect("JSON");
    assert_eq!(text, call["structured"]);
    let file = std::fs::read_to_string(repository().join("rustfmt.toml")).expect("a file");
    assert_eq!(seen["reads"][0]["text"], file);
}

fn check_bob(seen: &Value) {
    let tickets = ["tickets_get", "tickets_reply", "tickets_search", "tickets_summarize"];
    assert_eq!(seen["tools"], serde_json::json!(tickets));
    let error = &seen["calls"][0]["error"];
    // What is hidden from bob does not exist for him.
    assert_eq!(error["code"], -32602, "{seen:#}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("there is no tool of this name"), "{seen:#}");
}

#[tokio::test]
async fn the_python_sdk_signs_in_and_searches_in_the_newest_revision() {
    let mesh = TestMesh::start().await;
    check_alice(&run(python_flow(), &mesh, "alice", "2026-07-28").await, "2026-07-28");
    check_bob(&run(python_flow(), &mesh, "bob", "2026-07-28").await);
}

#[tokio::test]
async fn the_python_sdk_signs_in_and_searches_in_an_older_revision() {
    let mesh = TestMesh::start().await;
    check_alice(&run(python_flow(), &mesh, "alice", "2025-11-25").await, "2025-11-25");
    check_bob(&run(python_flow(), &mesh, "bob", "2025-11-25").await);
}

#[tokio::test]
async fn the_typescript_sdk_signs_in_and_searches() {
    let mesh = TestMesh::start().await;
    check_alice(&run(typescript_flow(), &mesh, "alice", "2025-11-25").await, "2025-11-25");
    check_bob(&run(typescript_flow(), &mesh, "bob", "2025-11-25").await);
}
