//! Audit logs: what is recorded of calls, decisions and everything that changes them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use drawbridge_audit::{
    AuditConfig, Event,
    event::{Call, CallOutcome},
    verify::verify,
};
use drawbridge_mesh::HostedService;
use drawbridge_tests::{
    Client, Edge, Reply, TestMesh, audit_calls, audit_decisions, audit_events, serve_conformance,
    sign_in,
};
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::timeout};

mod acts;
mod replicas;
mod sinks;
mod unwritable;
mod unwritable_auth;

/// The calls of the mixed load, and how many clients send them at once.
const CALLS: usize = 5_000;
const CLIENTS: usize = 16;
/// Calls that their clients give up.
const CANCELLED: usize = 24;
/// Policies beside those of the conformance service: a denial whatever the arguments, and one that
/// depends on them.
const POLICY: &str = r#"
@id("no-images")
forbid (principal, action == Action::"test_image_content", resource);
@id("no-secret-words")
forbid (principal, action == Action::"test_echo_values", resource)
when { context.input.text == "forbidden" };
"#;
/// One call of this tool per client is allowed.
const LIMIT: &str = "[[limit]]\nname = \"sounds\"\nby = \"tool\"\nrate = 1\n\
                     per_seconds = 864000\nonly = { tools = [\"test_audio_content\"] }\n";

fn audit(folder: &Path) -> AuditConfig {
    AuditConfig { audit_log: Some(folder.to_owned()), ..AuditConfig::default() }
}

/// Sends the call of this number. Returns the id of its request, and how it must have ended.
async fn send(
    number: usize,
    alice: &Client,
    anonymous: &Client,
) -> (String, CallOutcome, &'static str) {
    use CallOutcome::{Denied, Failed, Ok, Refused, ToolError};
    let tool = async |name: &str, arguments: Value| alice.call_tool(name, arguments).await;
    let (reply, outcome, code) = match number % 14 {
        0 => (tool("test_simple_text", json!({})).await, Ok, ""),
        1 => (tool("test_who_am_i", json!({ "secret": "hunter2" })).await, Ok, ""),
        2 => (tool("test_image_content", json!({})).await, Denied, "policy_denied"),
        3 => (tool("test_error_handling", json!({})).await, ToolError, ""),
        4 => {
            let broken = json!({ "code": 13, "message": "broken" });
            (tool("test_fail_with", broken).await, Failed, "INTERNAL")
        }
        5 => (tool("test_echo_values", json!({ "text": "hello" })).await, Ok, ""),
        6 => {
            let forbidden = json!({ "text": "forbidden" });
            (tool("test_echo_values", forbidden).await, Denied, "policy_denied")
        }
        7 => {
            let reply = tool("test_audio_content", json!({})).await;
            let is_limited = reply.status == StatusCode::TOO_MANY_REQUESTS;
            let (outcome, code) = if is_limited { (Refused, "rate_limited") } else { (Ok, "") };
            (reply, outcome, code)
        }
        8 => {
            let unknown = json!({ "no_such_argument": 1 });
            (tool("test_simple_text", unknown).await, Refused, "invalid_arguments")
        }
        9 => (tool("test_no_such_tool", json!({})).await, Refused, "unknown_item"),
        10 => {
            (anonymous.call_tool("test_simple_text", json!({})).await, Refused, "unauthenticated")
        }
        11 => {
            let read = json!({ "uri": "test://static-text" });
            (alice.call("resources/read", read).await, Ok, "")
        }
        12 => {
            let prompt = json!({ "name": "test_simple_prompt" });
            (alice.call("prompts/get", prompt).await, Ok, "")
        }
        _ => (alice.call("tools/list", json!({})).await, Ok, ""),
    };
    (reply.request_id().to_owned(), outcome, code)
}

/// Clients give up calls that take long.
async fn cancel(alice: &Client) {
    let mut cancelling = JoinSet::new();
    for _ in 0..CANCELLED {
        let alice = alice.clone();
        cancelling.spawn(async move {
            let slow = alice.call_tool("test_slow_work", json!({ "milliseconds": 60_000 }));
            assert!(timeout(Duration::from_millis(500), slow).await.is_err(), "it has ended");
        });
    }
    while let Some(cancelled) = cancelling.join_next().await {
        cancelled.expect("a call");
    }
}

/// The file of the log filter.
fn filter_of(files: &TempDir) -> PathBuf {
    files.path().join("filter")
}

/// A mesh with the conformance service, all of whose logs are in one folder.
async fn start(folder: &Path, config: &str) -> (TestMesh, HostedService, Edge, TempDir) {
    let files = tempfile::tempdir().expect("a folder");
    fs::write(filter_of(&files), "error").expect("a file");
    let mesh = TestMesh::with(|config| {
        serve_conformance(config);
        fs::write(config.policies.join("audit.cedar"), POLICY).expect("a file");
        config.telemetry.log = "error".to_owned();
        config.audit = audit(folder);
        config.telemetry.log_filter_file = Some(filter_of(&files));
    })
    .await;
    let file = files.path().join("edge.toml");
    fs::write(&file, config).expect("a file");
    let (_, service, edge) = mesh
        .conformance(|config| {
            config.audit = audit(folder);
            config.audit.audit_replica = Some("second".to_owned());
            config.config = Some(file);
        })
        .await;
    (mesh, service, edge, files)
}

#[tokio::test]
async fn every_call_of_a_mixed_load_has_one_outcome_and_every_decided_one_a_decision() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mesh, _service, edge, files) = start(folder.path(), LIMIT).await;
    let alice = edge.client(&mesh.client("alice").await);
    let anonymous = edge.client(&mesh.anonymous());
    let changing =
        tokio::spawn(acts::change_log_filter(folder.path().to_owned(), filter_of(&files)));
    cancel(&alice).await;
    let mut sending = JoinSet::new();
    for client in 0..CLIENTS {
        let (alice, anonymous) = (alice.clone(), anonymous.clone());
        sending.spawn(async move {
            let mut sent = Vec::new();
            for number in (client..CALLS).step_by(CLIENTS) {
                sent.push(send(number, &alice, &anonymous).await);
            }
            sent
        });
    }
    let sent: Vec<_> = sending.join_all().await.into_iter().flatten().collect();
    assert_eq!(sent.len(), CALLS);
    changing.await.expect("changes of the log filter");
    // The limit of records of unauthenticated callers is per second. What it suppressed is counted
    // in the next such record.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let last = anonymous.call_tool("test_simple_text", json!({})).await;
    assert_eq!(last.status, StatusCode::UNAUTHORIZED);
    edge.hosted.stop().await;
    mesh.stop().await;

    let mut calls: HashMap<String, Vec<Call>> = HashMap::new();
    for call in audit_calls(folder.path()) {
        calls.entry(call.request_id.clone()).or_default().push(call);
    }
    let decisions = audit_decisions(folder.path());
    let of = |id: &str| decisions.iter().filter(|decision| decision.request_id == id).count();
    let unauthenticated = calls.values().flatten().filter(|call| call.who.is_none());
    let unauthenticated: u64 = unauthenticated.map(|call| 1 + call.suppressed).sum();
    let expected = sent.iter().filter(|(_, _, code)| *code == "unauthenticated").count() + 1;
    assert_eq!(unauthenticated, expected as u64);
    for (id, outcome, code) in sent.iter().filter(|(_, _, code)| *code != "unauthenticated") {
        let of_request = calls.remove(id).unwrap_or_default();
        let [call] = &of_request[..] else {
            panic!("{id} ({outcome:?} {code}) does not have one record")
        };
        assert_eq!(call.outcome, *outcome, "{call:?}");
        // A tool names the status of its error itself.
        assert!(call.code == *code || *outcome == CallOutcome::ToolError, "{call:?}");
        check_decision(call, of);
    }
    let cancelled = calls.into_values().flatten();
    let cancelled = cancelled.filter(|call| call.item == "test_slow_work").inspect(|call| {
        assert_eq!(call.outcome, CallOutcome::Cancelled, "{call:?}");
        check_decision(call, of);
    });
    assert_eq!(cancelled.count(), CANCELLED);
    acts::check_acts(folder.path());
    for report in verify(&[folder.path().to_owned()], &[], |_| {}).expect("logs") {
        assert!(report.problems.is_empty() && report.lost == 0, "{report:?}");
    }
}

/// What was decided refers to the one decision that auth has recorded; what was not refers to none.
fn check_decision(call: &Call, count: impl Fn(&str) -> usize) {
    let is_decided = call.method != "tools/list"
        && !["unauthenticated", "unknown_item"].contains(&call.code.as_str());
    match &call.decision {
        Some(decision) if is_decided => {
            assert_eq!(count(&decision.request_id), 1, "{call:?}");
            assert_eq!(decision.cached, decision.request_id != call.request_id, "{call:?}");
            assert!(!decision.policy_revision.is_empty(), "{call:?}");
            assert_eq!(call.who.as_ref().map(|who| who.subject.as_str()), Some("alice"));
        }
        decision => assert!(!is_decided && decision.is_none() || call.method == "tools/list"),
    }
}

#[tokio::test]
async fn no_record_has_a_token_a_password_or_a_sensitive_argument() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mesh, _service, edge, _files) = start(folder.path(), "").await;
    let state = &mesh.mesh.state;
    let internal = sign_in(&state.issuer, &state.internal_audience, "alice", "alice").await;
    let alice = edge.client(&mesh.client("alice").await);
    let forged = alice.clone().at(&edge.url);
    let reply = alice.call_tool("test_who_am_i", json!({ "secret": "hunter2" })).await;
    assert_eq!(reply.status, StatusCode::OK);
    let invalid = json!({ "secret": { "hunter2": 1 } });
    assert_eq!(forged.call_tool("test_who_am_i", invalid).await.status, StatusCode::OK);
    let forger = mesh.client_with("planted-token-0123456789");
    let refused = edge.client(&forger).call_tool("test_who_am_i", json!({})).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    edge.hosted.stop().await;
    mesh.stop().await;
    let events = format!("{:?}", audit_events(folder.path()));
    assert!(events.contains("test_who_am_i") && events.contains("SignIn"), "{events}");
    for planted in ["hunter2", "planted-token", alice.token(), &internal] {
        assert!(!events.contains(planted), "{planted} in {events}");
    }
}

/// The questions of a call, and the answers.
#[tokio::test]
async fn changes_sign_ins_and_answers_of_persons_have_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mesh, _service, edge, files) = start(folder.path(), LIMIT).await;
    let alice = edge.client(&mesh.client("alice").await);
    let asked = ask(&alice, None).await;
    let state = asked.json["result"]["requestState"].as_str().map(str::to_owned);
    let asked_keys: Vec<String> = asked.json["result"]["inputRequests"]
        .as_object()
        .expect("questions")
        .keys()
        .cloned()
        .collect();
    let answers: serde_json::Map<_, _> = asked_keys
        .into_iter()
        .map(|key| (key, json!({ "action": "accept", "content": { "name": "Ada" } })))
        .collect();
    let answered = ask(&alice, Some((state, Value::Object(answers)))).await;
    assert!(answered.json["result"]["content"].is_array(), "{answered:?}");

    let file = files.path().join("edge.toml");
    fs::write(&file, "[[limit]]\nname = 7\n").expect("a file");
    mesh.write_policy("audit.cedar", "permit (principal, action, resource) when {");
    let is_recorded = |wanted: &dyn Fn(&Event) -> bool| {
        drawbridge_audit::read::records(&[folder.path().to_owned()])
            .expect("logs")
            .filter_map(Result::ok)
            .any(|item| match item {
                drawbridge_audit::read::Item::Record(record) => wanted(&record.event),
                drawbridge_audit::read::Item::Torn { .. } => false,
            })
    };
    let config = |event: &Event| match event {
        Event::ConfigChange(change) => !change.accepted && change.what == "config",
        _ => false,
    };
    let policy = |event: &Event| match event {
        Event::PolicyChange(change) => !change.accepted && !change.problem.is_empty(),
        _ => false,
    };
    let changed = async {
        while !(is_recorded(&config) && is_recorded(&policy)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), changed).await.expect("records of the rejected changes");
    edge.hosted.stop().await;
    mesh.stop().await;

    let events = audit_events(folder.path());
    let calls = audit_calls(folder.path());
    let call = |reply: &Reply| {
        let of = calls.iter().find(|call| call.request_id == reply.request_id());
        of.expect("a record").clone()
    };
    let first = call(&asked);
    assert_eq!((first.outcome, first.code.as_str()), (CallOutcome::Ok, "input_required"));
    assert_eq!(first.questions[0].answer, "none");
    assert_eq!(call(&answered).questions[0].answer, "accept");
    let has = |wanted: &dyn Fn(&Event) -> bool| events.iter().any(wanted);
    assert!(has(&|event| matches!(event, Event::Approval(it)
        if it.answer == "accept" && it.who.subject == "alice")));
    assert!(has(&|event| matches!(event, Event::SignIn(it)
        if it.outcome == "ok" && it.subject == "alice")));
    assert!(has(&|event| matches!(event, Event::PolicyChange(it)
        if it.accepted && it.previous.is_empty() && !it.revision.is_empty())));
    assert!(has(&|event| matches!(event, Event::ConfigChange(it)
        if it.accepted && it.digest.len() == 64)));
    assert!(has(&|event| matches!(event, Event::Start(_))));
    assert!(has(&|event| matches!(event, Event::Stop(_))));
}

/// Calls a tool that asks for a name, in the stateless revision.
async fn ask(alice: &Client, answers: Option<(Option<String>, Value)>) -> Reply {
    let name = "test_input_required_result_elicitation";
    let mut params = json!({
        "name": name, "arguments": {},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
        },
    });
    if let Some((state, responses)) = answers {
        params["inputResponses"] = responses;
        params["requestState"] = json!(state);
    }
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let mut request = alice.post().body(message.to_string()).build().expect("a request");
    let headers = request.headers_mut();
    headers.insert("mcp-protocol-version", "2026-07-28".parse().expect("a value"));
    headers.insert("mcp-method", "tools/call".parse().expect("a value"));
    headers.insert("mcp-name", name.parse().expect("a value"));
    alice.send_built(Ok(request)).await
}

/// One auth and one edge: a rewritten log contradicts the other one.
#[tokio::test]
async fn auth_and_the_edge_record_the_checkpoints_of_one_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = TestMesh::with(|config| config.audit = audit(folder.path())).await;
    let bob = mesh.client("bob").await;
    assert_eq!(bob.call_tool("tickets_search", json!({})).await.status, StatusCode::OK);
    let anchored = || {
        let mut by = Vec::new();
        for report in verify(&[folder.path().to_owned()], &[], |_| {}).unwrap_or_default() {
            let service = report.log.split('/').next().unwrap_or_default().to_owned();
            by.extend((!report.vouchers.is_empty()).then_some(service));
        }
        by
    };
    let anchoring = async {
        while !["auth", "edge"].iter().all(|name| anchored().iter().any(|by| by == name)) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(60), anchoring).await.expect("each vouches for the other");
    mesh.stop().await;
}
