//! Services that `drawbridge new service` writes: they build by the commands that it prints, pass
//! their own tests, refuse invalid tokens, and serve AI clients of every revision.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::FromArgMatches as _;
use drawbridge_cli::{
    command_line::{self, CommandLine, Subcommands},
    new::{self, NewCommand, Report},
};
use drawbridge_tests::{
    ServiceProcess, TestIssuer, TestMesh, python, repository, serve_conformance,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::{auth::rpcs::check_rejections, identity::contract, mcp::conformance::run_suite};

mod go;
mod python;
mod rust;

/// The service `rooms` from the template of a language.
pub(crate) struct NewService {
    folder: TempDir,
    report: Report,
}

impl NewService {
    /// Writes the service as `drawbridge new service rooms --lang …` does.
    pub(crate) fn write(language: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("rooms").display().to_string();
        let arguments =
            ["drawbridge", "new", "service", "rooms", "--lang", language, "--out", &out];
        let matches = command_line::command().get_matches_from(arguments);
        let parsed = CommandLine::from_arg_matches(&matches).expect("arguments");
        let Some(Subcommands::New(NewCommand::Service(args))) = parsed.command else {
            panic!("another command");
        };
        let report = new::write(&args).expect("a service");
        Self { folder, report }
    }

    /// The folder of the service.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().join("rooms")
    }

    /// Runs the commands that build and test the service, as they are printed, with these
    /// variables. The last command, which starts it, is not run.
    pub(crate) fn build(&self, variables: &[(&str, &Path)]) {
        let (_, build) = self.report.build.split_last().expect("commands");
        for line in build {
            let mut command = Command::new("sh");
            command.args(["-ec", line]).current_dir(self.folder());
            command.envs(variables.iter().copied()).stdin(Stdio::null());
            let output = command.output().expect("a shell");
            let text = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&text));
        }
    }

    /// The command that starts the service, as it is printed. Further arguments are the service's.
    pub(crate) fn start_command(&self) -> Command {
        let line = self.report.build.last().expect("a command");
        let mut command = Command::new("sh");
        command.args(["-ec", &format!("exec {line} \"$@\""), "sh"]).current_dir(self.folder());
        command
    }
}

/// Starts a service that trusts these keys.
fn start(mut command: Command, keys: &Url) -> ServiceProcess {
    command.args(["--auth-jwks-url", keys.as_str()]);
    ServiceProcess::start(command)
}

/// Checks a built service of any language. `command` starts it.
pub(crate) async fn check_rooms(service: &NewService, command: impl Fn() -> Command) {
    let (keys, untrusted) =
        (TestIssuer::with_every_algorithm().await, TestIssuer::with_every_algorithm().await);
    let process = start(command(), &keys.url.join("/jwks").expect("a URL"));
    let rpcs = check_rejections(&process.url("http"), "rooms", &keys, &untrusted).await;
    assert_eq!(rpcs.len(), 2, "{rpcs:?}");
    let contract = contract(&process.url("http")).await;
    assert!(process.stop().success());

    let mesh = TestMesh::with(|config| {
        for (name, text) in drawbridge_cli::policy::schema::files(&contract) {
            fs::write(config.policies.join("catalog").join(name), text).expect("a file");
        }
        let policy = service.folder().join("policies/rooms.cedar");
        fs::copy(policy, config.policies.join("rooms.cedar")).expect("the policy");
    });
    let mesh = mesh.await;
    let process = start(command(), &mesh.transaction_keys());
    let edge = mesh.edge(&[("rooms", &process.url("http"))], |_| {}).await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    assert_eq!(edge.client(&bob).tools().await, ["rooms_search"]);
    let listed = edge.client(&alice).call("tools/list", json!({})).await;
    let tools = &listed.json["result"]["tools"];
    assert_eq!(
        [&tools[0]["name"], &tools[0]["description"]],
        ["rooms_book", "Books a meeting room, once the person has confirmed it."],
        "{listed:?}"
    );
    let purpose = &tools[0]["inputSchema"]["properties"]["purpose"]["description"];
    assert_eq!(purpose, "What the room is for.", "{listed:?}");

    for (protocol, room) in [("2025-11-25", "ada"), ("2026-07-28", "curie")] {
        let client = |answer| book(&edge.url, alice.token(), protocol, room, answer);
        let declined = client("decline");
        check_report(&declined, protocol, true);
        assert!(text(&declined).contains("the person did not confirm the booking"), "{declined}");
        let unasked = client("none");
        assert!(text(&unasked).contains("this client cannot ask for it"), "{unasked}");

        let booked = client("accept");
        check_report(&booked, protocol, false);
        assert_eq!(booked["asked"].as_array().map(Vec::len), Some(1), "{booked}");
        let steps = json!([[1.0, 2.0, "checking the calendar"], [2.0, 2.0, "booked"]]);
        assert_eq!(booked["progress"], steps, "{booked}");
        assert_eq!(booked["booking"]["booked_by"], "alice", "{booked}");
        assert_eq!(booked["booking"]["room"]["id"], room, "{booked}");
        assert!(text(&client("accept")).contains("is already booked"));
    }
    assert!(process.stop().success());
}

/// Checks that every RPC of the conformance service in another language rejects what no valid
/// transaction token is. `command` starts it.
async fn check_conformance_rejections(mut command: Command) {
    let (keys, untrusted) =
        (TestIssuer::with_every_algorithm().await, TestIssuer::with_every_algorithm().await);
    // The valid tokens would restart it.
    command.arg("--fixed-contract");
    let process = start(command, &keys.url.join("/jwks").expect("a URL"));
    let rpcs = check_rejections(&process.url("http"), "test", &keys, &untrusted).await;
    assert!(rpcs.len() > 40, "{rpcs:?}");
}

/// Runs the official conformance suite against an edge before the conformance service in another
/// language.
async fn check_suite(command: Command, arguments: &[&str]) {
    let mesh = TestMesh::with(serve_conformance).await;
    let process = start(command, &mesh.transaction_keys());
    let edge = mesh.edge(&[("test", &process.url("http"))], |_| {}).await;
    run_suite(&mesh, &edge, arguments, &[]).await;
}

/// Finds and books a room with the official Python SDK, and returns what it saw.
fn book(url: &Url, token: &str, protocol: &str, room: &str, answer: &str) -> Value {
    let output = Command::new(python())
        .arg(repository().join("tests/clients/python/rooms.py"))
        .args(["--url", url.as_str(), "--token", token, "--protocol", protocol])
        .args(["--room", room, "--answer", answer])
        .stdin(Stdio::null())
        .output()
        .expect("python");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn check_report(report: &Value, protocol: &str, is_error: bool) {
    assert_eq!(report["protocolVersion"], protocol, "{report}");
    assert_eq!(report["found"], json!(["ada"]), "{report}");
    assert_eq!(report["isError"], is_error, "{report}");
}

fn text(report: &Value) -> &str {
    report["text"].as_str().expect("a text")
}
