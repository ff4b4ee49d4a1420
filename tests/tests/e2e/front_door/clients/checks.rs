//! What every client has to have seen, whatever its language and revision.

use std::fs;

use drawbridge_tests::repository;
use serde_json::{Value, json};

use super::{Access, Client, NOVEMBER_2025, STATELESS, Scenario, field::Work};

/// What a client does to sign in, in this order.
const STEPS: [&str; 7] = [
    "POST /mcp 401",
    "GET /.well-known/oauth-protected-resource/mcp 200",
    "GET /.well-known/oauth-authorization-server 200",
    "POST /register 201",
    "GET /authorize 200",
    "POST /authorize 303",
    "POST /token 200",
];

/// Whose own requests nobody sees.
const UNSEEN: [&str; 2] = ["mcp-remote", "rmcp"];

pub(super) fn check(client: &Client, revision: &str, scenarios: &[Scenario], seen: &Value) {
    let about = format!("{} in {revision}", client.release);
    assert_eq!(seen["client"], client.release, "{about}");
    assert_eq!(seen["protocol"], revision, "{about}");
    for scenario in scenarios {
        let about = format!("{about}: {}", scenario.name());
        let seen = &seen[scenario.name()];
        match scenario {
            Scenario::Flow => check_flow(client, seen, &about),
            Scenario::Progress => {
                check_events(&seen["events"], Work::SLOW, &about);
                // What the client could make no sense of.
                assert_eq!(seen["complaints"], json!([]), "{about}");
            }
            Scenario::Cancel => {
                assert!(!seen["error"].is_null(), "{about}: {seen}");
                assert_eq!(seen["stopped"], true, "{about}: {seen}");
            }
            Scenario::BrokenStream => check_burst(client, seen, &about),
            Scenario::LostSession => check_lost(seen, &about),
            Scenario::Proxies => check_proxies(client, revision, seen, &about),
        }
    }
}

/// A needle for the tests of real clients.
fn check_flow(client: &Client, seen: &Value, about: &str) {
    if client.access == Access::SignsIn && !UNSEEN.contains(&client.name) {
        let mut steps = seen["steps"].as_array().expect("steps").iter().filter_map(Value::as_str);
        for step in STEPS {
            assert!(
                steps.any(|seen| seen == step),
                "{about}: {step} is missing, or comes too soon: {seen:#}"
            );
        }
    }
    assert_eq!(seen["tools"], json!(["code_list_files", "code_search"]), "{about}");
    assert_eq!(seen["resourceTemplates"], json!(["code://{+path}"]), "{about}");
    let found: Value = serde_json::from_str(seen["text"].as_str().expect("text")).expect("JSON");
    let matches = found["matches"].as_array().expect("matches");
    let lines: Vec<_> = matches.iter().filter_map(|found| found["line"].as_str()).collect();
    assert!(lines.contains(&"/// A needle for the tests of real clients."), "{about}: {lines:?}");
    let file = fs::read_to_string(repository().join("rustfmt.toml")).expect("a file");
    assert_eq!(seen["read"], file, "{about}");
    // What is hidden does not exist.
    let denied = &seen["denied"];
    assert_eq!(denied["code"], -32602, "{about}: {denied}");
    let message = denied["message"].as_str().expect("a message");
    assert!(message.contains("there is no tool of this name"), "{about}: {denied}");
}

/// Some clients hand progress over from several threads, so its order is not theirs to promise.
fn check_events(seen: &Value, work: Work, about: &str) {
    let mut seen: Vec<String> = serde_json::from_value(seen.clone()).expect("events");
    assert_eq!(seen.last().map(String::as_str), Some("worked"), "{about}: {seen:?}");
    let mut events = work.events();
    seen.sort_unstable();
    events.sort_unstable();
    assert_eq!(seen, events, "{about}");
}

/// What may have come at once.
fn check_burst(client: &Client, seen: &Value, about: &str) {
    if client.name != "mcp-remote" {
        return check_events(seen, Work::QUICK, about);
    }
    // It writes all of it at once, and who reads its standard output (the TypeScript SDK) takes a
    // result before the progress that stands before it.
    let seen: Vec<String> = serde_json::from_value(seen.clone()).expect("events");
    assert_eq!(seen.last().map(String::as_str), Some("worked"), "{about}: {seen:?}");
    assert!(seen.iter().all(|event| Work::QUICK.events().contains(event)), "{about}: {seen:?}");
}

fn check_lost(seen: &Value, about: &str) {
    assert_eq!(seen["ended"], true, "{about}");
    // Without an error, the client has started again by itself.
    let error = seen["error"].to_string();
    let is_told = ["-32001", "terminated", "null"].iter().any(|sign| error.contains(sign));
    assert!(is_told, "{about}: {error}");
    assert_eq!(seen["again"], "This is a simple text response for testing.", "{about}");
}

fn check_proxies(client: &Client, revision: &str, seen: &Value, about: &str) {
    for name in ["buffering", "idle", "stripping"] {
        let (about, seen) = (format!("{about}: {name}"), &seen[name]);
        assert_eq!(seen["silent"], "worked", "{about}");
        check_burst(client, &seen["events"], &about);
        // The stateless revision needs its headers: where they are stripped, clients speak the one
        // before.
        let is_stripped = name == "stripping" && revision == STATELESS;
        assert_eq!(seen["protocol"], if is_stripped { NOVEMBER_2025 } else { revision }, "{about}");
    }
}
