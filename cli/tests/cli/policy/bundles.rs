//! Bundles of policies: made, signed, pushed, and seen at replicas.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::{Folder, copy};
use crate::{
    REPOSITORY, Up,
    commands::docs::{blocks, path_with_the_binary},
    text,
    up::tool,
};

const PAGE: &str = "docs/how-to/distribute-policies.md";

/// A real OCI registry. It ends when it is dropped.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start() -> Self {
        let mut command = Command::new(tool("registry/registry"));
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the registry");
        let mut address = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut address).expect("its address");
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Folder {
    /// A copy of the policies in the folder `policies`, with a key `a.key`.
    fn with_key() -> Self {
        let folder = Self::new();
        copy(&std::path::Path::new(REPOSITORY).join("policies"), &folder.0.path().join("policies"));
        folder.run_in(0, &["key", "acme.example/a", "--out", "a.key"]);
        folder
    }

    fn bundle(&self, code: i32, revision: &str, more: &[&str]) -> String {
        let bundle = ["bundle", "--out", "p.tar.gz", "--key", "a.key", "--revision", revision];
        self.run_in(code, &[&bundle, more].concat())
    }
}

#[test]
fn every_command_of_the_page_runs() {
    let (registry, up, folder) = (Registry::start(), Up::start(), Folder::with_key());
    let admin = up.report["services"]["auth"]["admin"].as_str().expect("an address");
    let mut run = 0;
    for block in blocks(PAGE).iter().filter(|block| block.info == "sh") {
        let script = block.text.replace("localhost:5000", &registry.address);
        let script = script.replace("127.0.0.1:7111", admin);
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).current_dir(folder.0.path());
        let output = bash.env("PATH", path_with_the_binary()).output().expect("bash");
        let place = format!("{PAGE}:{}", block.line);
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{place}:\n{script}\n{printed}");
        run += 1;
    }
    assert!(run >= 3, "{run} blocks are run");
}

#[test]
fn the_same_files_are_the_same_bundle_and_the_signature_names_it() {
    let folder = Folder::with_key();
    let read = |name: &str| fs::read(folder.0.path().join(name)).expect("a file");
    let printed = folder.bundle(0, "1", &["--json"]);
    let report: Value = serde_json::from_str(&printed).expect("JSON");
    let first = read("p.tar.gz");
    assert!(report["cases"].as_u64() > Some(10) && report["revision"] == 1, "{report}");
    assert_eq!(report["signed_by"][0], "acme.example/a");
    let note = String::from_utf8(read("p.tar.gz.sig")).expect("a note");
    assert!(note.contains(report["sha256"].as_str().expect("a digest")), "{note}");
    assert!(note.contains("\n— acme.example/a "), "{note}");
    folder.bundle(0, "2", &["--valid-days", "3", "--allow-rollback", "5"]);
    assert_eq!(read("p.tar.gz"), first);
    let note = String::from_utf8(read("p.tar.gz.sig")).expect("a note");
    assert!(note.contains("\nnot_after ") && note.contains("\nallow_rollback 5\n"), "{note}");
}

#[test]
fn no_bundle_is_made_of_policies_that_auth_would_refuse() {
    let folder = Folder::with_key();
    folder.edit("policies/code.cedar", r#"Group::"engineering""#, r#"Group::"support""#);
    let output = folder.bundle(1, "1", &[]);
    assert!(output.contains("policies/tests/code.json:2:"), "{output}");
    assert!(output.contains("fails: expected Allow"), "{output}");
    assert!(output.contains("no bundle was made"), "{output}");
    folder.edit("policies/code.cedar", "\npermit (", "\npermid (");
    assert!(folder.bundle(1, "1", &[]).contains("policies/code.cedar:"));
    assert!(!folder.0.path().join("p.tar.gz").exists());
}

#[test]
fn wrong_files_and_keys_are_errors_that_say_what_would_be_right() {
    let folder = Folder::with_key();
    let check = |code: i32, arguments: &[&str], wanted: &str| {
        let output = folder.run_in(code, arguments);
        assert!(output.contains(wanted), "{arguments:?}: {output}");
    };
    check(2, &["key", "acme.example/a", "--out", "a.key"], "a.key exists; name a new file");
    check(2, &["key", "a b", "--out", "b.key"], "invalid key name \"a b\" (no spaces");
    let bundle = ["bundle", "--out", "p.tar.gz", "--revision", "1", "--key"];
    let with = |key: &'static str| [&bundle[..], &[key]].concat();
    check(2, &with("none.key"), "cannot read the private key none.key");
    fs::write(folder.0.path().join("public.key"), "a+c74f20a3+ARpc2Q").expect("a file");
    check(2, &with("public.key"), "can be read by others");
    check(2, &[&with("a.key"), &["--name", "a b"][..]].concat(), "a name has letters");
    folder.bundle(0, "1", &[]);
    fs::write(folder.0.path().join("policies/tests/ä.json"), "[]").expect("a file");
    check(2, &with("a.key"), "\"tests/ä.json\" does not belong into a bundle");
    let keys = folder.run_in(0, &["key", "acme.example/b", "--out", "b.key"]);
    let keys = format!("keys = [{:?}]", keys.trim());
    fs::write(folder.0.path().join("policy-keys.toml"), keys).expect("a file");
    let url = "http://127.0.0.1:1/p.tar.gz";
    let trusted = ["push", "p.tar.gz", url, "--policy-keys", "policy-keys.toml"];
    check(2, &trusted, "auth would refuse the bundle");
    check(2, &["push", "p.tar.gz", url], "cannot push to http://127.0.0.1:1/p.tar.gz");
    check(2, &["push", "p.tar.gz", "http://a.example/p"], "http is for loopback only");
    check(2, &["push", "p.tar.gz", "policies"], "policies is not a URL");
    fs::write(folder.0.path().join("p.tar.gz"), "changed").expect("a file");
    check(2, &["push", "p.tar.gz", url], "p.tar.gz.sig is about another bundle than p.tar.gz");
    check(2, &["sign", "p.tar.gz", "--key", "a.key"], "is about another bundle");
    check(1, &["status", "--auth", "http://127.0.0.1:1"], "1 replica: 1 behind");
}
