//! `drawbridge revoke` revokes what it says, or says that it does not.

use std::{fs, process::Output};

use serde_json::Value;

use crate::{Up, text};

fn revoke(up: &Up, arguments: &[&str]) -> Output {
    up.run("revoke", arguments)
}

#[test]
fn an_unknown_issuer_is_an_error_that_names_those_that_are_known() {
    let up = Up::start();
    let issuer = up.said["issuer"].as_str().expect("an issuer").to_owned();
    let with_slash = format!("{issuer}/");
    for unknown in [with_slash.as_str(), "nonsense", "https://idp.example"] {
        for option in ["--subject", "--client", "--token-id"] {
            let failed = revoke(&up, &[option, "alice", "--of", unknown]);
            let said = text(&failed.stderr);
            assert_eq!(failed.status.code(), Some(1), "{unknown}: {said}");
            let problem = format!("unknown issuer {unknown:?}; the issuers known here: {issuer}\n");
            assert!(said.starts_with("error: ") && said.ends_with(&problem), "{said}");
            assert!(failed.stdout.is_empty(), "{}", text(&failed.stdout));
        }
    }
    let done = revoke(&up, &["--subject", "alice", "--of", &issuer]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    up.stop();
}

#[test]
fn the_state_of_the_mesh_has_the_issuer_to_the_letter() {
    let up = Up::start();
    let mut files =
        fs::read_dir(up.state.path()).expect("a folder").map(|entry| entry.expect("one").path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "json"));
    let text = fs::read_to_string(file.expect("the state")).expect("text");
    let state: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(state["issuer"], up.said["issuer"]);
    let port = up.said["services"]["idp"]["address"].as_str().expect("an address");
    assert_eq!(state["issuer"], format!("http://{port}"));
    up.stop();
}

#[test]
fn a_name_of_which_no_token_was_verified_is_a_warning_and_is_revoked_anyway() {
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
        let said: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!(said[key], "alcie", "{said}");
        assert!(said["notSeenSince"].is_string() && said["revokedAt"].is_string(), "{said}");
    }
    // The command line's own token is one that auth has verified.
    for option in ["--subject", "--client"] {
        let done = revoke(&up, &[option, "drawbridge-cli", "--json"]);
        assert!(!warning(&done), "{}", text(&done.stderr));
        let said: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert!(said["notSeenSince"].is_null(), "{said}");
        // Revocations count in whole seconds, and this was its own.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    up.stop();
}
