//! Tests of the real binary `drawbridge`, run as a process.

#![cfg(unix)]
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

mod audit;
mod catalog;
mod commands;
mod config;
mod doctor;
mod init;
mod mcp;
mod new;
mod policy;
mod revoke;
mod top;
mod trace;
mod transform;
mod tutorials;
mod up;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A running `drawbridge up`.
struct Up {
    child: Child,
    state: Arc<TempDir>,
    report: Value,
}

impl Up {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(more: &[&str]) -> Self {
        Self::with_env(more, &[])
    }

    fn with_env(more: &[&str], variables: &[(&str, &str)]) -> Self {
        let state = new_state();
        let mut command = drawbridge(state.path());
        command.args(["up", "--free-ports", "--json", "--log", "warn"]).args(more);
        command.envs(variables.iter().copied());
        Self::spawn(state, command)
    }

    /// A mesh started in a folder that is no checkout.
    fn outside_a_checkout(folder: &Path, more: &[&str]) -> Self {
        let state = new_state();
        let mut command = drawbridge(state.path());
        command.args(["up", "--free-ports", "--json", "--log", "warn"]).args(more);
        command.current_dir(folder);
        Self::spawn(state, command)
    }

    /// Another mesh of the same user.
    fn sibling(&self, more: &[&str]) -> Self {
        let mut command = drawbridge(self.state.path());
        command.args(["up", "--free-ports", "--json", "--log", "warn"]).args(more);
        Self::spawn(Arc::clone(&self.state), command)
    }

    /// A mesh with the state folder of an earlier one, on the ports that the arguments name.
    fn restart(state: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut command = drawbridge(state.path());
        command.args(["up", "--json", "--log", "warn"]).args(arguments);
        Self::spawn(state, command)
    }

    fn spawn(state: Arc<TempDir>, mut command: Command) -> Self {
        if command.get_current_dir().is_none() {
            command.current_dir(REPOSITORY);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let report = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { child, state, report }
    }

    fn state_file(&self) -> PathBuf {
        self.state
            .path()
            .join(format!("mesh-{}.json", self.report["name"].as_str().expect("a name")))
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        drawbridge(self.state.path()).arg(command).args(arguments).output().expect("the binary")
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.run("call", arguments)
    }

    fn stop(mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        let id = self.child.id().to_string();
        Command::new("kill").args(["-INT", &id]).status().expect("kill");
        let code = self.child.wait().expect("an end").code();
        (code, started.elapsed())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It has exited already unless the test failed.
        let _ = self.child.kill();
    }
}

fn new_state() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a folder"))
}

fn drawbridge(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
    command.env("DRAWBRIDGE_STATE_DIR", state);
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn up_reports_all_addresses_and_stops_soon_after_ctrl_c() {
    let up = Up::start();
    assert!(up.report["mcpUrl"].as_str().is_some_and(|url| url.ends_with("/mcp")), "{}", up.report);
    for service in ["edge", "auth", "code", "idp"] {
        assert!(up.report["services"][service]["address"].is_string(), "{}", up.report);
    }
    let file = up.state_file();
    let mode = fs::metadata(&file).expect("the state").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, elapsed) = up.stop();
    assert_eq!(code, Some(0));
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
    assert!(!file.exists());
}

#[test]
fn call_exchanges_the_callers_token_and_calls_by_reflection() {
    let up = Up::start();
    let found =
        up.call(&["code", "Search", r#"{"query":"fn main","glob":"cli/src/main.rs"}"#, "--json"]);
    assert!(found.status.success(), "{}", text(&found.stderr));
    let response: Value = text(&found.stdout)
        .lines()
        .last()
        .map(serde_json::from_str)
        .expect("a line")
        .expect("JSON");
    assert_eq!(response["result"]["matches"][0]["path"], "cli/src/main.rs", "{response}");

    let full =
        up.call(&["code", "drawbridge.code.v1.CodeService/ListFiles", r#"{"glob":"*.proto"}"#]);
    assert!(text(&full.stdout).contains("proto/proto/drawbridge/code/v1/code.proto"));

    for (arguments, error) in [
        (
            &["code", "NoSuch"][..],
            "unknown method NoSuch; known methods: Search, ListFiles, ReadFile",
        ),
        (&["nowhere", "Search"][..], "unknown service nowhere"),
        (&["code", "Search", "{"][..], "the request is not valid JSON"),
        (
            &["code", "Search", r#"{"nonsense":1}"#][..],
            "the request is not a valid drawbridge.code.v1.SearchRequest",
        ),
        (&["code", "Search", r#"{"query":""}"#][..], "INVALID_ARGUMENT"),
        (&["code", "ReadFile", r#"{"path":"Cargo.toml"}"#][..], "denied by policy"),
        (&["code", "Search", "--token", "nonsense"][..], "the access token is malformed"),
    ] {
        let failed = up.call(arguments);
        assert_eq!(failed.status.code(), Some(1), "{arguments:?}");
        assert!(text(&failed.stderr).contains(error), "{arguments:?}: {}", text(&failed.stderr));
    }
    up.stop();
}

#[test]
fn services_require_mtls_and_the_command_line_has_a_certificate() {
    let up = Up::start();
    let read = |path: &Path| fs::read_to_string(path).expect("a file");
    let state: Value = serde_json::from_str(&read(&up.state_file())).expect("JSON");
    let code = state["services"]["code"].as_str().expect("a URL").to_owned();
    assert!(
        code.starts_with("https://")
            && state["auth_url"].as_str().expect("a URL").starts_with("https://")
    );
    let file = |name: &str| Path::new(state["mtls"][name].as_str().expect("a file")).to_owned();
    let (certificate, key, bundle) = (file("certificate"), file("key"), file("trust_bundle"));
    assert_eq!(fs::metadata(&key).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(key.parent().expect("a folder")).expect("it").permissions().mode() & 0o777,
        0o700
    );

    let search = r#"{"query":"fn main","glob":"cli/src/main.rs"}"#;
    assert!(up.call(&["code", "Search", search]).status.success());
    // Without a certificate the call fails, and so does a call to a server with another SPIFFE id.
    let plain = code.replace("https:", "http:");
    let refused = up.call(&["code", "Search", search, "--service-url", &plain]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stdout));
    let auth = state["auth_url"].as_str().expect("a URL");
    let refused = up.call(&["code", "Search", search, "--service-url", auth]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stdout));
    // The same files, given by options.
    let given = |path: &Path| path.display().to_string();
    let (certificate, key_given, bundle) = (given(&certificate), given(&key), given(&bundle));
    let by_hand = ["--mtls-certificate-file", &certificate, "--mtls-key-file", &key_given];
    let by_hand =
        [&["code", "Search", search][..], &by_hand, &["--mtls-trust-bundle-file", &bundle]]
            .concat();
    let found = up.call(&by_hand);
    assert!(found.status.success(), "{}", text(&found.stderr));
    let schema = tempfile::tempdir().expect("a folder");
    let written = up.run(
        "policy",
        &["schema", "--service-url", &code, "--out", schema.path().to_str().expect("a path")],
    );
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert!(schema.path().join("code.cedarschema").exists());
    up.stop();
    assert!(!key.exists(), "stopping the mesh removes the key");
}

#[test]
fn call_without_a_mesh_names_the_missing_option() {
    let state = tempfile::tempdir().expect("a folder");
    let failed =
        drawbridge(state.path()).args(["call", "code", "Search"]).output().expect("the binary");
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("start a mesh, or give --service-url"));
}

#[test]
fn up_reports_why_it_cannot_start() {
    let state = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let mut command = drawbridge(state.path());
        command.arg("up").args(arguments).current_dir(REPOSITORY).output().expect("the binary")
    };
    let no_policies = run(&["--policies", "no/such/folder"]);
    assert_eq!(no_policies.status.code(), Some(1));
    assert!(text(&no_policies.stderr).contains("no policy folder no/such/folder"));

    let broken = tempfile::tempdir().expect("a folder");
    fs::create_dir(broken.path().join("catalog")).expect("a folder");
    fs::write(broken.path().join("x.cedar"), "permit (principal, action, resource);")
        .expect("a file");
    let broken = broken.path().display().to_string();
    let refused = run(&["--free-ports", "--policies", &broken]);
    assert!(
        text(&refused.stderr).contains("x.cedar:1:1: this policy has no @id"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn help_lists_every_command() {
    let state = tempfile::tempdir().expect("a folder");
    let help = drawbridge(state.path()).arg("--help").output().expect("the binary");
    for command in ["up", "call", "revoke", "policy", "catalog"] {
        assert!(text(&help.stdout).contains(command));
    }
}
