//! The logs of a mesh.

use std::fmt;

use drawbridge_proto::code::v1::{SearchRequest, code_service_client::CodeServiceClient};
use drawbridge_tests::{Reply, TestMesh, connect};
use drawbridge_transport::with_transaction_token;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json};
use tonic::{Code, Request};

use crate::gateway::limits::until;

/// A JSON value none of whose objects has a key twice.
#[derive(Debug)]
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

macro_rules! accept_scalars {
    ($($visit:ident: $kind:ty),+) => {
        $(fn $visit<E>(self, _: $kind) -> Result<Self, E> {
            Ok(Self)
        })+
    };
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    accept_scalars!(
        visit_bool: bool,
        visit_f64: f64,
        visit_i64: i64,
        visit_str: &str,
        visit_u64: u64
    );

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(Self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut keys = Vec::<String>::new();
        while let Some((key, Self)) = members.next_entry::<String, Self>()? {
            if keys.contains(&key) {
                return Err(serde::de::Error::custom(format!("the key {key:?} is there twice")));
            }
            keys.push(key);
        }
        Ok(Self)
    }
}

/// Regression: refused requests and failed calls logged a field that was named `message`, beside
/// the message of the event.
#[tokio::test]
async fn no_log_line_has_a_key_twice_and_each_event_of_a_call_names_its_caller() {
    serde_json::from_str::<UniqueKeys>(r#"{"a":{"a":[{"b":1}]},"b":null}"#).expect("unique keys");
    serde_json::from_str::<UniqueKeys>(r#"{"a":[{"b":1,"b":2}]}"#).expect_err("a key twice");
    serde_json::from_str::<IgnoredAny>(r#"{"a":1,"a":2}"#).expect("valid JSON for others");

    let mesh = TestMesh::with(|config| config.telemetry.log_principals = true).await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    mesh.anonymous().call("tools/list", json!({})).await;
    alice.send_body("{").await;
    alice.tools().await;
    for _ in 0..2 {
        alice.call_tool("code_list_files", json!({})).await;
    }
    alice.call_tool("code_list_files", json!({ "glob": "!refused" })).await;
    alice.call_tool("code_search", json!({ "query": 1 })).await;
    bob.call_tool("code_list_files", json!({})).await;
    bob.call_tool("tickets_search", json!({ "query": "refund" })).await;

    let log = mesh.log();
    for line in log.lines() {
        if let Err(error) = serde_json::from_str::<UniqueKeys>(line) {
            panic!("{error}: {line}");
        }
    }
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let events =
        |message: &'static str| lines.iter().filter(move |line| line["message"] == message);
    for message in ["refused", "a call failed", "answered"] {
        assert!(events(message).count() > 0, "nothing logged {message:?}");
    }
    for message in ["decision", "called"] {
        assert!(events(message).count() > 0, "nothing logged {message:?}");
        for event in events(message) {
            for field in ["issuer", "subject", "client_id", "enduser.pseudo.id"] {
                assert!(event[field].is_string(), "no {field} in {event}");
            }
        }
    }
    for decision in events("decision") {
        assert!(decision["policy_ids"].is_array(), "{decision}");
    }
}

/// The line of the request with this response.
fn line_of(mesh: &TestMesh, reply: &Reply) -> Value {
    let id = reply.request_id();
    let log = mesh.log();
    let lines = log.lines().filter(|line| line.contains(r#""message":"answered""#));
    let lines: Vec<_> = lines.filter(|line| line.contains(id)).collect();
    assert_eq!(lines.len(), 1, "one line per request: {lines:?}");
    serde_json::from_str(lines[0]).expect("JSON")
}

#[tokio::test]
async fn a_request_has_one_line_with_who_what_and_how_it_ended() {
    let mesh = TestMesh::start().await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    let calls = [
        (&alice, "code_search", json!({ "query": "fn main" }), "ok"),
        (&alice, "code_list_files", json!({ "glob": "!refused" }), "tool_error"),
        (&bob, "code_search", json!({ "query": "fn main" }), "denied"),
    ];
    for (client, tool, arguments, outcome) in calls {
        let reply = client.call_tool(tool, arguments).await;
        let line = line_of(&mesh, &reply);
        if outcome == "tool_error" {
            let content = reply.json["result"]["content"].as_array().expect("content");
            let id = format!("request id: {}", reply.request_id());
            assert_eq!(content.last().map(|it| &it["text"]), Some(&json!(id)), "{reply:?}");
        } else {
            reply.assert_names_request();
        }
        assert_eq!((&line["item"], &line["outcome"]), (&json!(tool), &json!(outcome)), "{line}");
        assert_eq!(line["http.response.status_code"], reply.status.as_u16(), "{line}");
        assert_eq!(line["mcp.method.name"], "tools/call", "{line}");
        for field in ["enduser.pseudo.id", "client_id", "trace_id", "client.address"] {
            assert!(line[field].is_string(), "no {field} in {line}");
        }
        assert!(line["elapsed_us"].is_u64(), "{line}");
        let text = line.to_string();
        assert!(!text.contains("alice") && !text.contains("bob"), "{line}");
    }
    let refused = mesh.anonymous().call("tools/list", json!({})).await;
    let line = line_of(&mesh, &refused);
    assert_eq!((&line["outcome"], &line["code"]), (&json!("refused"), &json!("unauthenticated")));
    assert!(line.get("enduser.pseudo.id").is_none(), "{line}");
}

#[tokio::test]
async fn the_log_filter_changes_at_run_time_and_an_invalid_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("filter");
    let write = |text: &str| std::fs::write(&file, text).expect("a file");
    write("warn");
    let mesh = TestMesh::with(|config| {
        config.telemetry.log_filter_file = Some(file.clone());
    })
    .await;
    let alice = mesh.client("alice").await;
    let has_line = async || {
        let reply = alice.call("tools/list", json!({})).await;
        mesh.log().lines().any(|line| line.contains(reply.request_id()))
    };
    assert!(!has_line().await, "the filter is `warn`");
    write("info");
    until("the new filter", has_line).await;
    write("info,x=nonsense");
    until("the warning", async || mesh.log().contains("the log filter is invalid")).await;
    assert!(has_line().await, "the last valid filter is in effect");
}

#[tokio::test]
async fn the_reason_for_a_refused_transaction_token_is_logged_once() {
    let mesh = TestMesh::start().await;
    let channel = connect(&mesh.mesh.state.services["code"]).expect("a channel");
    for _ in 0..20 {
        let request = with_transaction_token(Request::new(SearchRequest::default()), "a.b.c");
        let mut client = CodeServiceClient::new(channel.clone());
        let refused = client.search(request.expect("a token")).await;
        assert_eq!(refused.expect_err("a refusal").code(), Code::Unauthenticated);
    }
    let log = mesh.log();
    let of = |line: &&str| line.contains(r#""message":"refused a transaction token""#);
    let lines: Vec<_> = log.lines().filter(of).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(r#""reason":"invalid""#), "{lines:?}");
}
