//! `drawbridge init`, `up` outside a checkout, and `client add`.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Up, drawbridge, text, up::client::Client};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Runs a command in a folder. It finds no mesh but that of the folder's own state.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    drawbridge(&folder.join("state"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the binary")
}

fn which<'a>(up: &'a Up, dependency: &str) -> &'a str {
    let dependencies = up.report["dependencies"].as_array().expect("a list");
    let found = dependencies.iter().find(|entry| entry["name"] == dependency);
    found.and_then(|entry| entry["which"].as_str()).unwrap_or_else(|| panic!("{}", up.report))
}

async fn sign_in(up: &Up, who: &str) -> Client {
    let text = |field: &str| up.report[field].as_str().expect("a text");
    Client::sign_in(text("mcpUrl"), text("issuer"), who).await
}

#[tokio::test]
async fn a_folder_of_init_is_a_mesh_of_its_own() {
    let folder = folder();
    let made = run(folder.path(), &["init", "demo", "--json"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let demo = folder.path().join("demo");
    let report: Value = serde_json::from_str(text(&made.stdout)).expect("JSON");
    for name in report["files"].as_array().expect("a list") {
        assert!(demo.join(name.as_str().expect("a name")).exists(), "{report}");
    }
    let checked = [
        &["policy", "check", "--deny-warnings"][..],
        &["policy", "test"],
        &["policy", "explain", "code_search", "--user", "alice"],
    ];
    for arguments in checked {
        let checked = run(&demo, arguments);
        assert!(
            checked.status.success(),
            "{arguments:?}: {}{}",
            text(&checked.stdout),
            text(&checked.stderr)
        );
    }
    let users = demo.join("users.toml");
    let own = fs::read_to_string(&users).expect("users").replace("\"bob\"", "\"ben\"");
    fs::write(&users, own).expect("a file");

    let up = Up::outside_a_checkout(&demo, &["--embedded"]);
    assert_eq!((which(&up, "policies"), which(&up, "edgeConfig")), ("policies", "edge.toml"));
    let ben = sign_in(&up, "ben").await;
    assert!(ben.tools().await.iter().any(|tool| tool == "tickets_search"));
    // The mesh's source tree is its own folder.
    let alice = sign_in(&up, "alice").await;
    let arguments = json!({ "name": "code_search", "arguments": { "query": "each-person" } });
    let (status, response) = alice.call("tools/call", arguments).await;
    let path = &response["result"]["structuredContent"]["matches"][0]["path"];
    assert_eq!(path, "edge.toml", "{status} {response}");
    // An edit of the policies holds.
    fs::remove_file(demo.join("policies/code.cedar")).expect("a file");
    for _ in 0..100 {
        if !alice.tools().await.iter().any(|tool| tool == "code_search") {
            up.stop();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("alice still sees code_search");
}

#[test]
fn init_overwrites_nothing() {
    let folder = folder();
    fs::write(folder.path().join("users.toml"), "# mine\n").expect("a file");
    let refused = run(folder.path(), &["init"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("already has users.toml"), "{}", text(&refused.stderr));
    let names: Vec<_> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["users.toml"], "nothing else was written");
}

#[tokio::test]
async fn up_in_an_empty_folder_uses_the_demos_policies_and_leaves_nothing() {
    let folder = folder();
    let up = Up::outside_a_checkout(folder.path(), &["--embedded"]);
    let described = which(&up, "policies");
    let path = described.strip_prefix("the demo's, in ").and_then(|rest| rest.split_once(';'));
    let policies = Path::new(path.unwrap_or_else(|| panic!("{described}")).0).to_owned();
    assert!(policies.join("mcp.cedarschema").exists());
    let bob = sign_in(&up, "bob").await;
    assert!(bob.tools().await.iter().any(|tool| tool == "tickets_search"));
    up.stop();
    assert!(!policies.exists(), "{}", policies.display());
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn a_missing_policy_folder_is_an_error() {
    let folder = folder();
    let refused = run(folder.path(), &["up", "--free-ports", "--embedded", "--policies", "none"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("no policy folder none"), "{}", text(&refused.stderr));
}

#[test]
fn client_add_writes_each_clients_own_config_file() {
    let folder = folder();
    let up = Up::start();
    let mcp_url = up.report["mcpUrl"].as_str().expect("a URL");
    let add = |more: &[&str]| {
        let at = folder.path().to_str().expect("a path");
        let output = up.run("client", &[&["add"], more, &["--folder", at, "--json"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_str::<Value>(text(&output.stdout)).expect("JSON")
    };
    let read = |file: &str| -> Value {
        let text = fs::read_to_string(folder.path().join(file)).expect("a file");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    for (client, file, servers) in [
        ("claude-code", ".mcp.json", "mcpServers"),
        ("cursor", ".cursor/mcp.json", "mcpServers"),
        ("vscode", ".vscode/mcp.json", "servers"),
        ("inspector", "mcp-inspector.json", "mcpServers"),
    ] {
        assert_eq!(add(&[client])["outcome"], "added");
        assert_eq!(read(file)[servers]["drawbridge"]["url"], mcp_url);
        assert_eq!(add(&[client])["outcome"], "unchanged");
        let other = add(&[client, "--namespace", "tickets", "--name", "tickets"]);
        assert_eq!(other["url"], format!("{mcp_url}/tickets"));
        let file = read(file);
        assert_eq!(file[servers]["tickets"]["url"], other["url"]);
        assert_eq!(file[servers]["drawbridge"]["url"], mcp_url);
    }
    let printed = up.run("client", &["add", "vscode", "--print"]);
    let printed: Value = serde_json::from_str(text(&printed.stdout)).expect("JSON");
    assert_eq!(printed["servers"]["drawbridge"]["type"], "http");
    up.stop();

    let refused = run(folder.path(), &["client", "add", "cursor"]);
    assert_eq!(refused.status.code(), Some(1));
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("start a mesh, or give --url"), "{stderr}");
}
