//! Several meshes of one user.

use std::process::Output;

use serde_json::Value;

use super::{Up, signal, text};

const POLICIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
const SEARCH: [&str; 4] =
    ["code", "Search", r#"{"query":"fn main","glob":"cli/src/main.rs"}"#, "--json"];

fn failed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let stderr = text(&output.stderr);
    for debug_text in ["Os {", "kind:", "Status {", "code:", "Error(", "Some("] {
        assert!(!stderr.contains(debug_text), "{stderr}");
    }
    stderr
}

#[test]
fn each_mesh_is_selected_by_its_name_and_stops_alone() {
    let first = Up::with(&["--embedded", "--name", "first"]);
    let second = first.sibling(&["--embedded"]);
    let port = second.report["name"].as_str().expect("a name").to_owned();
    assert!(
        second.report["mcpUrl"].as_str().expect("a URL").contains(&format!(":{port}/mcp")),
        "{port}"
    );

    let stderr = failed(&first.call(&SEARCH)).to_owned();
    assert!(
        stderr.contains(&format!(
            "several meshes are running ({port}, first): select one with --mesh"
        )),
        "{stderr}"
    );
    let stderr = failed(&first.run("revoke", &["--subject", "alice"])).to_owned();
    assert!(stderr.contains("select one with --mesh"), "{stderr}");
    for name in ["first", &port] {
        let called = first.call(&[&SEARCH[..], &["--mesh", name]].concat());
        assert!(called.status.success(), "{name}: {}", text(&called.stderr));
        let revoked = first.run("revoke", &["--subject", "bob", "--mesh", name, "--json"]);
        assert!(revoked.status.success(), "{name}: {}", text(&revoked.stderr));
    }
    let stderr = failed(&first.call(&[&SEARCH[..], &["--mesh", "third"]].concat())).to_owned();
    assert!(
        stderr.contains(&format!("no mesh third is running; running meshes: {port}, first")),
        "{stderr}"
    );
    // Another mesh of the same name would overwrite its files.
    let refused = first.run("up", &["--free-ports", "--name", "first", "--policies", POLICIES]);
    assert!(
        failed(&refused).contains("a mesh named first is already running (pid "),
        "{}",
        text(&refused.stderr)
    );

    second.stop();
    let called = first.call(&SEARCH);
    assert!(called.status.success(), "{}", text(&called.stderr));
    first.stop();
}

/// Regression: `call` reported an unreadable certificate and `Os { code: 2, … }`.
#[test]
fn the_state_file_of_a_killed_mesh_is_reported_as_stale() {
    let mut up = Up::with(&["--embedded", "--name", "killed"]);
    let pid = up.child.id();
    signal("-KILL", pid);
    up.child.wait().expect("an end");
    assert!(up.state_file().exists());
    let stale = format!("the mesh with pid {pid} is not running; start one with `drawbridge up`");
    for arguments in [&SEARCH[..], &["nowhere", "Search"]] {
        let output = up.call(arguments);
        assert!(failed(&output).contains(&stale), "{}", text(&output.stderr));
    }
    let output = up.run("revoke", &["--subject", "alice"]);
    assert!(failed(&output).contains(&stale), "{}", text(&output.stderr));
    let output = up.call(&[&SEARCH[..], &["--mesh", "killed"]].concat());
    let named = format!(
        "the mesh killed (pid {pid}) is not running; start one with `drawbridge up --name killed`"
    );
    assert!(failed(&output).contains(&named), "{}", text(&output.stderr));
    // Calls that need no mesh still work.
    let nowhere = ["--auth-url", "http://127.0.0.1:1", "--service-url", "http://127.0.0.1:1"];
    let output = up.call(&[&SEARCH[..], &nowhere].concat());
    assert!(failed(&output).contains("UNAVAILABLE: "), "{}", text(&output.stderr));

    // The next start removes the file.
    let next = up.sibling(&["--embedded", "--name", "next"]);
    assert!(!up.state_file().exists());
    let state: Value =
        serde_json::from_slice(&std::fs::read(next.state_file()).expect("a file")).expect("JSON");
    assert_eq!(state["pid"].as_u64(), Some(next.child.id().into()));
    next.stop();
}
