use std::collections::BTreeMap;

use super::*;
use drawbridge_mesh::calls::RecordedSpan;

fn span(id: &str, parent: &str, name: &str, ms: u64, attributes: Value) -> RecordedSpan {
    let attributes = serde_json::from_value(attributes).unwrap();
    RecordedSpan {
        service: if name.contains("Search") && id != "5" { "code" } else { "edge" }.to_owned(),
        name: name.to_owned(),
        kind: if ["3", "5"].contains(&id) { "client" } else { "server" }.to_owned(),
        id: id.to_owned(),
        parent: parent.to_owned(),
        start_unix_ns: id.parse().unwrap(),
        duration_ns: ms * 1_000_000,
        is_error: attributes_have_error(&attributes),
        attributes,
    }
}

fn attributes_have_error(attributes: &BTreeMap<String, Value>) -> bool {
    attributes.contains_key("error.type")
}

fn line(number: u64, fields: Value) -> RecordedLine {
    let fields = serde_json::from_value(fields).unwrap();
    RecordedLine { number, service: "auth".to_owned(), fields }
}

fn call() -> RecordedCall {
    RecordedCall {
        request_id: "r-1".to_owned(),
        trace_id: "4bf9".to_owned(),
        spans: vec![
            span("1", "client", "POST /mcp", 13, json!({ "http.response.status_code": 200 })),
            span("2", "1", "tools/call code_search", 12, json!({ "request_id": "r-1" })),
            span("3", "2", "drawbridge.auth.v1.AuthService/Authorize", 3, json!({})),
            span("4", "2", "cache", 0, json!({ "drawbridge.cache": "miss" })),
            span("5", "2", "drawbridge.code.v1.CodeService/Search", 1500, json!({})),
            span(
                "6",
                "5",
                "drawbridge.code.v1.CodeService/Search",
                7,
                json!({ "x": "a\u{1b}[0m" }),
            ),
        ],
        lines: vec![line(
            1,
            json!({ "timestamp": "2026-11-30T19:22:01.123456Z", "level": "INFO",
                    "message": "decision", "outcome": "allow", "item": "code_search",
                    "policy_ids": ["code-search"], "policy_revision": "ab12" }),
        )],
    }
}

#[test]
fn a_story_has_the_decision_the_spans_as_a_tree_and_the_log() {
    insta::assert_snapshot!(story(&call(), false), @"
    request  r-1
    trace    4bf9
    decision allow code_search by code-search (policies of revision ab12)
    outcome  ok after 13.0 ms

    POST /mcp                                              13.0 ms  edge  200
    └─ tools/call code_search                              12.0 ms  edge
       ├─ drawbridge.auth.v1.AuthService/Authorize         3.00 ms  edge →
       ├─ cache                                            0.00 ms  edge  miss
       └─ drawbridge.code.v1.CodeService/Search             1.50 s  edge →
          └─ drawbridge.code.v1.CodeService/Search         7.00 ms  code

    19:22:01.123 INFO  auth: decision item=code_search outcome=allow policy_ids=code-search policy_revision=ab12
    ");
}

#[test]
fn attributes_are_shown_on_request_and_cannot_change_the_terminal() {
    let shown = story(&call(), true);
    assert!(shown.contains("http.response.status_code = 200"), "{shown}");
    assert!(shown.contains("x = a\u{fffd}[0m") && !shown.contains('\u{1b}'), "{shown}");
    assert!(!shown.contains("request_id = "), "{shown}");
}

#[test]
fn a_failed_call_shows_the_reason_and_a_denial_its_policies() {
    let mut failed = call();
    failed.spans[1] = span("2", "1", "tools/call", 12, json!({ "error.type": "policy_denied" }));
    failed.lines.clear();
    failed.spans[2].attributes = serde_json::from_value(json!({
        "drawbridge.decision.outcome": "not_permitted", "drawbridge.policy_ids": [],
        "drawbridge.policy_revision": "ab12",
    }))
    .unwrap();
    let shown = story(&failed, false);
    assert!(shown.contains("outcome  policy_denied after 13.0 ms"), "{shown}");
    let decision = "decision not_permitted by no policy (policies of revision ab12)";
    assert!(shown.contains(decision), "{shown}");
}
