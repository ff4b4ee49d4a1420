use serde_json::json;

use super::*;

mod schema;

fn call() -> Record {
    let line = json!({
        "v": 1, "log": "edge/a/20261130T190601123Z", "seq": 7,
        "time": "2026-11-30T19:06:01.123Z", "prev": "00",
        "event": "call", "request_id": "r1", "issuer": "https://idp", "subject": "alice",
        "client_id": "claude", "tenant": "acme", "method": "tools/call", "operation":
        "KIND_CALL_TOOL", "item": "tickets_get|x", "service": "tickets", "rpc": "a.b/C",
        "client_address": "10.0.0.1", "trace_id": "abc", "outcome": "denied",
        "code": "policy_denied", "duration_us": 2500,
        "decision": { "request_id": "r1", "epoch": 3, "policy_ids": ["p"] },
    });
    serde_json::from_value(line).unwrap()
}

#[test]
fn a_call_is_an_api_activity_with_the_profile_of_ai_operations() {
    let event = to_ocsf(&call()).unwrap();
    assert_eq!((&event["class_uid"], &event["type_uid"]), (&json!(6003), &json!(600_399)));
    assert_eq!(event["metadata"]["profiles"], json!(["ai_operation", "trace"]));
    assert_eq!(event["metadata"]["uid"], "edge/a/20261130T190601123Z#7");
    assert_eq!(event["time"], 1_796_065_561_123_i64);
    assert_eq!((&event["status_id"], &event["status_code"]), (&json!(2), &json!("policy_denied")));
    assert_eq!(event["actor"]["user"]["uid"], "alice");
    assert_eq!(event["actor"]["user"]["org"]["uid"], "acme");
    assert_eq!(event["api"]["service"]["name"], "tickets");
    assert_eq!(event["ai_agent"]["uid"], "claude");
    assert_eq!(event["unmapped"]["drawbridge"]["decision"]["policy_ids"], json!(["p"]));
}

#[test]
fn cef_escapes_what_it_reserves() {
    let mut record = call();
    let Event::Call(call) = &mut record.event else { panic!() };
    call.code = "a=b\\c\nd".to_owned();
    let line = to_cef(&record).unwrap();
    assert!(line.starts_with("CEF:0|Drawbridge|Drawbridge|"), "{line}");
    assert!(line.contains("reason=a\\=b\\\\c\\nd "), "{line}");
    assert!(line.ends_with("cs1=tickets_get|x") && !line.contains('\n'), "{line}");
}

#[test]
fn a_pseudonymised_record_names_no_person() {
    let names = Pseudonyms::new(&[1; 32]);
    let mut record = json!({
        "issuer": "i", "subject": "alice", "email": "alice@acme.example", "groups": ["alice-team"],
        "client_address": "10.0.0.1", "arguments": { "name": "alice" },
        "actor": { "iss": "i", "sub": "alice", "act": { "iss": "i", "sub": "alice" } },
        "by": { "issuer": "i", "subject": "alice" }, "item": "tool", "value": "debug",
    });
    pseudonymise(&mut record, &names);
    let text = record.to_string();
    assert!(!text.contains("alice") && !text.contains("10.0.0.1"), "{text}");
    let pseudonym = names.of("i", "alice", "");
    assert_eq!(text.matches(&pseudonym).count(), 4, "{text}");
    assert_eq!((&record["item"], &record["value"]), (&json!("tool"), &json!("debug")));
}

#[test]
fn events_of_the_log_itself_are_not_exported() {
    let mut record = call();
    record.event = Event::Checkpoint(crate::event::CheckpointRecord::default());
    assert_eq!((to_ocsf(&record), to_cef(&record)), (None, None));
}
