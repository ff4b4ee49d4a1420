//! The code service never reveals files with keys.

use std::{fs, os::unix::fs::symlink};

use drawbridge_tests::{Client, TestMesh};
use serde_json::{Value, json};
use tempfile::TempDir;

const SECRET: &str = "a-key-that-must-stay-secret";
const KEYS: [&str; 12] = [
    "deploy/server.pem",
    "deploy/SERVER2.PEM",
    "deploy/tls.Key",
    "id_rsa",
    "web/.npmrc",
    ".env",
    ".env.local",
    "production.env",
    "home/.aws/credentials",
    ".git-credentials",
    "terraform.tfstate",
    "kubeconfig",
];

/// A tree with keys, and with inconspicuous links to one of them.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    for path in KEYS {
        write(path, &format!("{SECRET}\n"));
    }
    write("src/main.rs", "fn main() {}\n");
    write(".env.example", "KEY=example\n");
    symlink("deploy/server.pem", tree.path().join("harmless.txt")).expect("a link");
    symlink("deploy", tree.path().join("folder")).expect("a link");
    symlink("src/main.rs", tree.path().join("main.txt")).expect("a link");
    fs::hard_link(tree.path().join("id_rsa"), tree.path().join("hard.txt")).expect("a link");
    tree
}

async fn alice(tree: &TempDir) -> (TestMesh, Client) {
    let root = tree.path().to_owned();
    let mesh = TestMesh::with(|config| config.code_root = root).await;
    let alice = mesh.client("alice").await;
    (mesh, alice)
}

#[tokio::test]
async fn a_search_finds_no_key_by_any_glob_or_path() {
    let tree = tree();
    let (_mesh, alice) = alice(&tree).await;
    for arguments in [
        json!({ "query": ".", "regex": true, "glob": "*.pem" }),
        json!({ "query": ".", "regex": true, "glob": "*.{pem,PEM,Key,key}" }),
        json!({ "query": "key-that-must" }),
        json!({ "query": "key-that-must", "glob": "harmless.txt" }),
        json!({ "query": "key-that-must", "glob": "hard.txt" }),
        json!({ "query": "key-that-must", "path": "deploy" }),
        json!({ "query": "key-that-must", "path": "folder" }),
    ] {
        let reply = alice.call_tool("code_search", arguments.clone()).await;
        assert!(!reply.text.contains(SECRET), "{arguments}: {reply:?}");
    }
    let reply = alice.call_tool("code_search", json!({ "query": "fn main" })).await;
    let matches = &reply.json["result"]["structuredContent"]["matches"];
    assert_eq!(matches[0]["path"], "src/main.rs", "{reply:?}");
}

#[tokio::test]
async fn a_listing_contains_no_key() {
    let tree = tree();
    let (_mesh, alice) = alice(&tree).await;
    for arguments in
        [json!({}), json!({ "glob": "*.{pem,PEM,Key,tfstate}" }), json!({ "path": "deploy" })]
    {
        let reply = alice.call_tool("code_list_files", arguments).await;
        let files = reply.json["result"]["structuredContent"]["files"].as_array();
        let files = files.unwrap_or_else(|| panic!("{reply:?}"));
        let listed = |path: &Value| KEYS.iter().any(|key| path == key);
        assert!(!files.iter().any(|file| listed(&file["path"])), "{reply:?}");
    }
}

#[tokio::test]
async fn a_read_returns_no_key_under_any_name() {
    let tree = tree();
    let (_mesh, alice) = alice(&tree).await;
    let read = async |path: &str| {
        let uri = format!("code://{path}");
        alice.call("resources/read", json!({ "uri": uri })).await
    };
    let links = ["harmless.txt", "folder/SERVER2.PEM", "folder/tls.Key", "hard.txt"];
    for path in KEYS.into_iter().chain(links) {
        let reply = read(path).await;
        assert!(reply.error_code().is_some() && !reply.text.contains(SECRET), "{path}: {reply:?}");
    }
    // An existing key is indistinguishable from a missing one.
    let (there, missing) = (read("id_rsa").await, read("id_dsa").await);
    assert_eq!((there.error_code(), there.message()), (missing.error_code(), missing.message()));
    for path in [".env.example", "src/main.rs"] {
        let reply = read(path).await;
        assert!(reply.json["result"]["contents"][0]["text"].is_string(), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn a_link_must_be_read_by_the_path_that_policies_decide_on() {
    let tree = tree();
    let (_mesh, alice) = alice(&tree).await;
    let reply = alice.call("resources/read", json!({ "uri": "code://main.txt" })).await;
    assert!(reply.error_code().is_some(), "{reply:?}");
    assert!(reply.message().contains("must be written as `src/main.rs`"), "{reply:?}");
}
