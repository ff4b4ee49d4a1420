//! `drawbridge revoke`: unknown issuers, and names without verified tokens.

use std::{fs, process::Output};

use serde_json::Value;

use crate::{Up, text};

fn revoke(up: &Up, arguments: &[&str]) -> Output {
    up.run("revoke", arguments)
}

#[test]
fn an_unknown_issuer_is_an_error_that_lists_the_known_ones() {
    let up = Up::start();
    let issuer = up.report["issuer"].as_str().expect("an issuer").to_owned();
    let with_slash = format!("{issuer}/");
    for unknown in [with_slash.as_str(), "nonsense", "https://idp.example"] {
        for option in ["--subject", "--client", "--token-id"] {
            let failed = revoke(&up, &[option, "alice", "--of", unknown]);
            let output = text(&failed.stderr);
            assert_eq!(failed.status.code(), Some(1), "{unknown}: {output}");
            let problem = format!("unknown issuer {unknown:?}; known issuers: {issuer}\n");
            assert!(output.starts_with("error: ") && output.ends_with(&problem), "{output}");
            assert!(failed.stdout.is_empty(), "{}", text(&failed.stdout));
        }
    }
    let done = revoke(&up, &["--subject", "alice", "--of", &issuer]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    up.stop();
}

#[test]
fn the_state_file_has_the_exact_issuer() {
    let up = Up::start();
    let mut files =
        fs::read_dir(up.state.path()).expect("a folder").map(|entry| entry.expect("one").path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "json"));
    let text = fs::read_to_string(file.expect("the state")).expect("text");
    let state: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(state["issuer"], up.report["issuer"]);
    let port = up.report["services"]["idp"]["address"].as_str().expect("an address");
    assert_eq!(state["issuer"], format!("http://{port}"));
    up.stop();
}

#[test]
fn a_name_without_verified_tokens_is_revoked_with_a_warning() {
    let up = Up::start();
    let warning = |done: &Output| {
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stderr)
            .lines()
            .any(|line| line.starts_with("warning: auth has verified no token of "))
    };
    for (option, key) in
        [("--subject", "subject"), ("--client", "client"), ("--token-id", "tokenId")]
    {
        let done = revoke(&up, &[option, "alcie", "--json"]);
        assert!(warning(&done), "{}", text(&done.stderr));
        let output: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!(output[key], "alcie", "{output}");
        assert!(output["notSeenSince"].is_string() && output["revokedAt"].is_string(), "{output}");
    }
    // Auth has verified tokens of the command line.
    for option in ["--subject", "--client"] {
        let done = revoke(&up, &[option, "drawbridge-cli", "--json"]);
        assert!(!warning(&done), "{}", text(&done.stderr));
        let output: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert!(output["notSeenSince"].is_null(), "{output}");
        // This revoked its own token; revocations count in whole seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    up.stop();
}
