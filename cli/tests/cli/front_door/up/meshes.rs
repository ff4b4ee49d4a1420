//! Several meshes of one user.

use std::process::Output;

use serde_json::Value;

use super::{Up, signal, text};

const POLICIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
const SEARCH: [&str; 4] =
    ["code", "Search", r#"{"query":"fn main","glob":"cli/src/main.rs"}"#, "--json"];

fn failed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let said = text(&output.stderr);
    for of_rust in ["Os {", "kind:", "Status {", "code:", "Error(", "Some("] {
        assert!(!said.contains(of_rust), "{said}");
    }
    said
}

#[test]
fn each_mesh_is_called_by_its_name_and_ends_alone() {
    let first = Up::with(&["--embedded", "--name", "first"]);
    let second = first.beside(&["--embedded"]);
    let port = second.said["name"].as_str().expect("a name").to_owned();
    assert!(
        second.said["mcpUrl"].as_str().expect("a URL").contains(&format!(":{port}/mcp")),
        "{port}"
    );

    let said = failed(&first.call(&SEARCH)).to_owned();
    assert!(
        said.contains(&format!("several meshes run ({port}, first): name one with --mesh")),
        "{said}"
    );
    let said = failed(&first.run("revoke", &["--subject", "alice"])).to_owned();
    assert!(said.contains("name one with --mesh"), "{said}");
    for name in ["first", &port] {
        let called = first.call(&[&SEARCH[..], &["--mesh", name]].concat());
        assert!(called.status.success(), "{name}: {}", text(&called.stderr));
        let revoked = first.run("revoke", &["--subject", "bob", "--mesh", name, "--json"]);
        assert!(revoked.status.success(), "{name}: {}", text(&revoked.stderr));
    }
    let said = failed(&first.call(&[&SEARCH[..], &["--mesh", "third"]].concat())).to_owned();
    assert!(said.contains(&format!("no mesh third runs; those that run: {port}, first")), "{said}");
    // Another one of the same name would take its files.
    let refused = first.run("up", &["--free-ports", "--name", "first", "--policies", POLICIES]);
    assert!(
        failed(&refused).contains("a mesh named first runs already (pid "),
        "{}",
        text(&refused.stderr)
    );

    second.stop();
    let called = first.call(&SEARCH);
    assert!(called.status.success(), "{}", text(&called.stderr));
    first.stop();
}

/// `call` failed with a certificate that could not be read, and `Os { code: 2, … }`.
#[test]
fn the_file_of_a_mesh_that_was_killed_is_said_to_be_stale() {
    let mut up = Up::with(&["--embedded", "--name", "killed"]);
    let pid = up.child.id();
    signal("-KILL", pid);
    up.child.wait().expect("an end");
    assert!(up.state_file().exists());
    let stale = format!("the mesh of pid {pid} does not run; start one with `drawbridge up`");
    for arguments in [&SEARCH[..], &["nowhere", "Search"]] {
        let output = up.call(arguments);
        assert!(failed(&output).contains(&stale), "{}", text(&output.stderr));
    }
    let output = up.run("revoke", &["--subject", "alice"]);
    assert!(failed(&output).contains(&stale), "{}", text(&output.stderr));
    let output = up.call(&[&SEARCH[..], &["--mesh", "killed"]].concat());
    let named = format!(
        "the mesh killed of pid {pid} does not run; start one with `drawbridge up --name killed`"
    );
    assert!(failed(&output).contains(&named), "{}", text(&output.stderr));
    // What needs no mesh goes on.
    let nowhere = ["--auth-url", "http://127.0.0.1:1", "--service-url", "http://127.0.0.1:1"];
    let output = up.call(&[&SEARCH[..], &nowhere].concat());
    assert!(failed(&output).contains("UNAVAILABLE: "), "{}", text(&output.stderr));

    // The next start removes the file.
    let next = up.beside(&["--embedded", "--name", "next"]);
    assert!(!up.state_file().exists());
    let state: Value =
        serde_json::from_slice(&std::fs::read(next.state_file()).expect("a file")).expect("JSON");
    assert_eq!(state["pid"].as_u64(), Some(next.child.id().into()));
    next.stop();
}
