//! `drawbridge trace` and `drawbridge logs` in a running mesh.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::Value;

use crate::{Up, drawbridge, new_state, text};

/// The socket of the recent calls.
fn socket(up: &Up) -> std::path::PathBuf {
    let state = std::fs::read(up.state_file()).expect("the state");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    Path::new(state["calls_socket"].as_str().expect("a path")).to_owned()
}

#[test]
fn trace_and_logs_find_a_call_by_its_request_id() {
    let state = new_state();
    let mut command = drawbridge(state.path());
    command.args(["up", "--free-ports", "--json", "--embedded", "--log", "info"]);
    let up = Up::spawn(state, command);
    let mode = std::fs::metadata(socket(&up)).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let none = up.run("trace", &[]);
    assert_eq!(none.status.code(), Some(1));

    let secret = "hunter2-is-secret";
    let arguments = format!(r#"{{"query":"{secret}"}}"#);
    let called = up.run("tools", &["call", "--user", "alice", "code_search", &arguments]);
    assert!(called.status.success(), "{}", text(&called.stderr));
    let recorded = |arguments: &[&str]| -> Value {
        let trace = up.run("trace", &[arguments, &["--json"]].concat());
        serde_json::from_slice(&trace.stdout).unwrap_or_else(|_| panic!("{}", text(&trace.stderr)))
    };
    // The latest request is the end of the client's session, or the call.
    let logs = up.run("logs", &["--json"]);
    let id = text(&logs.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .find(|line| line["fields"]["item"] == "code_search")
        .and_then(|line| Some(line["fields"]["request_id"].as_str()?.to_owned()))
        .unwrap_or_else(|| panic!("{}", text(&logs.stdout)));
    let call = recorded(&[&id]);
    let names: Vec<_> = call["spans"].as_array().expect("spans").iter().collect();
    let services: std::collections::BTreeSet<_> =
        names.iter().filter_map(|span| span["service"].as_str()).collect();
    assert!(services.is_superset(&["auth", "code", "edge"].into()), "{call:#}");

    let story = up.run("trace", &[&id, "--attributes"]);
    let story = text(&story.stdout);
    assert!(story.starts_with(&format!("request  {id}\ntrace    ")), "{story}");
    assert!(story.contains("decision allow code_search by "), "{story}");
    assert!(story.contains("outcome  ok after ") && story.contains("─ "), "{story}");
    assert!(!story.contains(secret), "arguments are in no span and no line: {story}");
    let lines = up.run("logs", &[&id]);
    assert!(text(&lines.stdout).contains(" auth: "), "{}", text(&lines.stdout));

    let unknown = up.run("trace", &["no-such-request"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("the mesh has no request no-such-request"));
    let socket = socket(&up);
    up.stop();
    assert!(!socket.exists(), "the socket ends with the mesh");
}

#[test]
fn without_a_mesh_the_commands_say_where_else_to_look() {
    for command in ["trace", "logs"] {
        let failed = drawbridge(new_state().path()).arg(command).output().expect("the binary");
        assert_eq!(failed.status.code(), Some(1));
        let stderr = text(&failed.stderr);
        assert!(stderr.contains("no mesh that records calls: start a mesh"), "{stderr}");
    }
}
