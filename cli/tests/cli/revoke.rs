//! `drawbridge revoke`, with and without a mesh.

use std::{fs, process::Output, time::Duration};

use drawbridge_cli::caller;
use drawbridge_mesh::state::MeshState;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{Up, drawbridge, policy::Folder, text};

const SEARCH: [&str; 3] = ["code", "Search", r#"{"query":"fn main","glob":"cli/src/main.rs"}"#];

fn time(report: &Value) -> Timestamp {
    report
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("not a time: {report}"))
}

/// A token of the command line, requested as it does for each call.
fn request_own_token(up: &Up) -> String {
    let state = MeshState::all(up.state.path()).expect("a state").pop().expect("a mesh").state;
    let own = state.workload.as_ref().expect("credentials");
    let request = caller::client_credentials(
        &state.issuer,
        &own.client_id,
        &own.client_secret,
        &state.internal_audience,
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(request).expect("a token").expose_secret().to_owned()
}

#[test]
fn revoke_prints_the_revocation_and_its_retention_as_json() {
    let up = Up::start();
    let issuer = up.report["issuer"].as_str().expect("an issuer").trim_end_matches('/');
    for (option, key) in
        [("--subject", "subject"), ("--client", "client"), ("--token-id", "tokenId")]
    {
        let done = up.run("revoke", &[option, "alice", "--json"]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!(
            (report["issuer"].as_str(), report[key].as_str()),
            (Some(issuer), Some("alice")),
            "{report}"
        );
        let (at, until) = (time(&report["revokedAt"]), time(&report["forgottenAt"]));
        assert_eq!(until.as_second() - at.as_second(), 30 * 24 * 3600);
        assert!((Timestamp::now().as_second() - at.as_second()).abs() < 60, "{at}");
    }
    let done = up.run("revoke", &["--subject", "alice", "--of", issuer]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report = text(&done.stdout);
    assert!(
        report.starts_with(&format!(
            "revoked the tokens of {issuer} for the subject alice issued until 2"
        )),
        "{report}"
    );
    up.stop();
}

#[test]
fn a_revoked_token_is_rejected_at_once_and_a_later_one_is_accepted() {
    let up = Up::start();
    let token = request_own_token(&up);
    let call = |token: &str| up.call(&[&SEARCH[..], &["--token", token]].concat());
    let before = call(&token);
    assert!(before.status.success(), "{}", text(&before.stderr));
    let done = up.run("revoke", &["--subject", "drawbridge-cli"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let after = call(&token);
    assert_eq!(after.status.code(), Some(1));
    assert!(text(&after.stderr).contains("the access token is revoked"), "{}", text(&after.stderr));
    // Revocations count in whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let later = up.call(&SEARCH);
    assert!(later.status.success(), "{}", text(&later.stderr));
    // A revoked token cannot revoke others.
    let revoking = up.run("revoke", &["--subject", "alice", "--token", &token]);
    assert_eq!(revoking.status.code(), Some(1));
    assert!(text(&revoking.stderr).contains("the access token is revoked"));
    up.stop();
}

#[test]
fn an_invalid_command_line_exits_with_2_and_an_error() {
    let state = tempfile::tempdir().expect("a folder");
    for (arguments, error) in [
        (&[][..], "the following required arguments were not provided"),
        (&["--subject", "alice", "--client", "c"][..], "cannot be used with"),
        (&["--subject"][..], "a value is required for '--subject <SUBJECT>'"),
        (&["--subject", "alice", "--everything"][..], "unexpected argument '--everything'"),
        (&["alice"][..], "unexpected argument 'alice'"),
        (&["--subject", "alice", "--issuer", "https://idp.example"][..], "--client-id <CLIENT_ID>"),
    ] {
        let failed =
            drawbridge(state.path()).arg("revoke").args(arguments).output().expect("the binary");
        assert_eq!(failed.status.code(), Some(2), "{arguments:?}");
        let report = text(&failed.stderr);
        assert!(report.starts_with("error: ") && report.contains(error), "{arguments:?}: {report}");
        assert!(failed.stdout.is_empty());
    }
}

#[test]
fn revoke_without_a_mesh_names_the_missing_option() {
    let state = tempfile::tempdir().expect("a folder");
    // A port without a listener.
    let auth = ["--auth-url", "http://127.0.0.1:1"];
    let of = ["--of", "https://idp.example"];
    let check = |more: &[&[&str]], error: &str| {
        let arguments = [&["--subject", "alice", "--json"][..], &more.concat()].concat();
        let failed: Output =
            drawbridge(state.path()).arg("revoke").args(&arguments).output().expect("the binary");
        assert_eq!(failed.status.code(), Some(1), "{arguments:?}");
        assert!(text(&failed.stderr).contains(error), "{arguments:?}: {}", text(&failed.stderr));
        assert!(failed.stdout.is_empty(), "{arguments:?}");
    };
    check(&[], "the URL of auth is unknown; start a mesh, or give --auth-url");
    check(&[&auth], "the issuer of the tokens is unknown; give --of");
    check(&[&auth, &of], "no caller identity: give --token, or --issuer with");
    check(&[&auth, &of, &["--token", "a-secret"]], "auth at http://127.0.0.1:1/: UNAVAILABLE");
    assert!(fs::read_dir(state.path()).expect("a folder").next().is_none());
}

#[test]
fn a_caller_that_policies_do_not_permit_cannot_revoke() {
    let policies = Folder::new();
    policies.edit("administration.cedar", "Group::\"platform\"", "Group::\"security\"");
    let up = Up::with(&["--policies", &policies.0.path().display().to_string()]);
    let failed = up.run("revoke", &["--subject", "alice"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("denied by policy: revoke: no policy permits it"));
    up.stop();
}
