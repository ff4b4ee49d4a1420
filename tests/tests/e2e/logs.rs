//! The logs of a mesh.

use std::fmt;

use drawbridge_tests::TestMesh;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json};

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

    let mesh = TestMesh::start().await;
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
    for message in ["decision", "cached decision used", "called"] {
        assert!(events(message).count() > 0, "nothing logged {message:?}");
        for event in events(message) {
            for field in ["issuer", "subject", "client_id"] {
                assert!(event[field].is_string(), "no {field} in {event}");
            }
        }
    }
}
