//! Checks of every client's report, independent of its language and revision.

use std::fs;

use drawbridge_tests::repository;
use serde_json::{Value, json};

use super::{Access, Client, NOVEMBER_2025, STATELESS, Scenario, testbed::Work};

/// The requests of a sign-in, in this order.
const STEPS: [&str; 7] = [
    "POST /mcp 401",
    "GET /.well-known/oauth-protected-resource/mcp 200",
    "GET /.well-known/oauth-authorization-server 200",
    "POST /register 201",
    "GET /authorize 200",
    "POST /authorize 303",
    "POST /token 200",
];

/// Clients whose HTTP requests the programs cannot record.
const UNRECORDED: [&str; 2] = ["mcp-remote", "rmcp"];

pub(super) fn check(client: &Client, revision: &str, scenarios: &[Scenario], report: &Value) {
    let about = format!("{} in {revision}", client.release);
    assert_eq!(report["client"], client.release, "{about}");
    assert_eq!(report["protocol"], revision, "{about}");
    for scenario in scenarios {
        let about = format!("{about}: {}", scenario.name());
        let report = &report[scenario.name()];
        match scenario {
            Scenario::Flow => check_flow(client, report, &about),
            Scenario::Progress => {
                check_events(&report["events"], Work::SLOW, &about);
                // Messages that the client could not handle.
                assert_eq!(report["complaints"], json!([]), "{about}");
            }
            Scenario::Cancel => {
                assert!(!report["error"].is_null(), "{about}: {report}");
                assert_eq!(report["stopped"], true, "{about}: {report}");
            }
            Scenario::BrokenStream => check_burst(client, report, &about),
            Scenario::LostSession => check_lost(report, &about),
            Scenario::Proxies => check_proxies(client, revision, report, &about),
        }
    }
}

/// A needle for the tests of real clients.
fn check_flow(client: &Client, report: &Value, about: &str) {
    if client.access == Access::SignsIn && !UNRECORDED.contains(&client.name) {
        let mut steps = report["steps"].as_array().expect("steps").iter().filter_map(Value::as_str);
        for step in STEPS {
            assert!(
                steps.any(|seen| seen == step),
                "{about}: {step} is missing or out of order: {report:#}"
            );
        }
    }
    assert_eq!(report["tools"], json!(["code_list_files", "code_search"]), "{about}");
    assert_eq!(report["resourceTemplates"], json!(["code://{+path}"]), "{about}");
    let found: Value = serde_json::from_str(report["text"].as_str().expect("text")).expect("JSON");
    let matches = found["matches"].as_array().expect("matches");
    let lines: Vec<_> = matches.iter().filter_map(|found| found["line"].as_str()).collect();
    assert!(lines.contains(&"/// A needle for the tests of real clients."), "{about}: {lines:?}");
    let file = fs::read_to_string(repository().join("rustfmt.toml")).expect("a file");
    assert_eq!(report["read"], file, "{about}");
    // A hidden tool is reported as unknown.
    let denied = &report["denied"];
    assert_eq!(denied["code"], -32602, "{about}: {denied}");
    let message = denied["message"].as_str().expect("a message");
    assert!(message.contains("there is no tool with this name"), "{about}: {denied}");
}

/// Some clients deliver progress from several threads, so its order is not guaranteed.
fn check_events(report: &Value, work: Work, about: &str) {
    let mut report: Vec<String> = serde_json::from_value(report.clone()).expect("events");
    assert_eq!(report.last().map(String::as_str), Some("worked"), "{about}: {report:?}");
    let mut events = work.events();
    report.sort_unstable();
    events.sort_unstable();
    assert_eq!(report, events, "{about}");
}

/// Like [`check_events`], for events that may arrive together.
fn check_burst(client: &Client, report: &Value, about: &str) {
    if client.name != "mcp-remote" {
        return check_events(report, Work::QUICK, about);
    }
    // It writes all events at once, and the TypeScript SDK that reads its standard output may
    // handle a result before the preceding progress.
    let report: Vec<String> = serde_json::from_value(report.clone()).expect("events");
    assert_eq!(report.last().map(String::as_str), Some("worked"), "{about}: {report:?}");
    assert!(report.iter().all(|event| Work::QUICK.events().contains(event)), "{about}: {report:?}");
}

fn check_lost(report: &Value, about: &str) {
    assert_eq!(report["ended"], true, "{about}");
    // No error means that the client started a new session by itself.
    let error = report["error"].to_string();
    let is_reported = ["-32001", "terminated", "null"].iter().any(|sign| error.contains(sign));
    assert!(is_reported, "{about}: {error}");
    assert_eq!(report["again"], "This is a simple text response for testing.", "{about}");
}

fn check_proxies(client: &Client, revision: &str, report: &Value, about: &str) {
    for name in ["buffering", "idle", "stripping"] {
        let (about, report) = (format!("{about}: {name}"), &report[name]);
        assert_eq!(report["silent"], "worked", "{about}");
        check_burst(client, &report["events"], &about);
        // The stateless revision needs its headers; where a proxy strips them, clients fall back to
        // the previous revision.
        let is_stripped = name == "stripping" && revision == STATELESS;
        assert_eq!(
            report["protocol"],
            if is_stripped { NOVEMBER_2025 } else { revision },
            "{about}"
        );
    }
}
