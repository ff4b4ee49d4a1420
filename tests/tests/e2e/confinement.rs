//! The service `code` never reads outside of its tree, whatever path a caller requests.

use std::{fs, os::unix::fs::symlink};

use drawbridge_tests::TestMesh;
use serde_json::{Value, json};

const SECRET: &str = "the secret outside";

#[tokio::test]
async fn no_path_escapes_the_tree() {
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("secret.txt"), SECRET).expect("a file");
    let tree = tempfile::tempdir().expect("a folder");
    fs::write(tree.path().join("inside.txt"), "the text inside\n").expect("a file");
    symlink(outside.path(), tree.path().join("folder")).expect("a link");
    symlink(outside.path().join("secret.txt"), tree.path().join("link.txt")).expect("a link");

    let root = tree.path().to_owned();
    let mesh = TestMesh::with(|config| config.code_root = root).await;
    let alice = mesh.client("alice").await;

    let read = alice.call("resources/read", json!({ "uri": "code://inside.txt" })).await;
    assert_eq!(read.json["result"]["contents"][0]["text"], "the text inside\n", "{read:?}");
    let absolute = outside.path().join("secret.txt").display().to_string();
    let name = outside.path().file_name().expect("a name").to_string_lossy().into_owned();
    for path in [
        format!("../{name}/secret.txt"),
        format!("..%2F{name}%2Fsecret.txt"),
        format!("./../{name}/secret.txt"),
        absolute.clone(),
        format!("/{absolute}"),
        absolute.replace('/', "%2F"),
        "folder/secret.txt".to_owned(),
        "link.txt".to_owned(),
        "inside.txt%00".to_owned(),
    ] {
        let reply = alice.call("resources/read", json!({ "uri": format!("code://{path}") })).await;
        assert!(reply.error_code().is_some() && !reply.message().is_empty(), "{path}: {reply:?}");
        assert!(!reply.text.contains(SECRET), "{path}: {reply:?}");
        reply.assert_names_request();
    }
    for path in ["..", "/etc", "folder", "inside.txt/../.."] {
        let reply =
            alice.call_tool("code_search", json!({ "query": "secret", "path": path })).await;
        assert_eq!(reply.json["result"]["isError"], Value::Bool(true), "{path}: {reply:?}");
        assert!(!reply.text.contains(SECRET), "{path}: {reply:?}");
    }
    let all = alice.call_tool("code_search", json!({ "query": "the" })).await;
    let matches = all.json["result"]["structuredContent"]["matches"].as_array().expect("matches");
    assert_eq!(matches.len(), 1, "{all:?}");
}
