//! Input and output schemas within the limits of model APIs.

use drawbridge_tests::{Client, TestMesh, serve_conformance};
use serde_json::{Value, json};

use self::rules::{APIS, broken_rules};

mod rules;

/// The maximum size of one user's tool list, in bytes: a model reads it with every request.
const LIST_BYTES_MAX: usize = 25_000;
/// The official conformance suite requires a tool with these keywords (SEP-1613).
const GIVEN_BY_THE_SUITE: &str = "json_schema_2020_12_tool";

async fn list(client: &Client) -> Vec<Value> {
    let reply = client.call("tools/list", json!({})).await;
    let result = &reply.json["result"];
    assert!(result.get("nextCursor").is_none(), "one page: {reply:?}");
    result["tools"].as_array().unwrap_or_else(|| panic!("{reply:?}")).clone()
}

#[track_caller]
fn check(tools: &[Value]) {
    let broken: Vec<_> = tools.iter().flat_map(broken_rules).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[tokio::test]
async fn every_shipped_tool_is_accepted_by_every_model_api() {
    let mesh = TestMesh::start().await;
    let mut checked = std::collections::BTreeSet::new();
    for user in ["alice", "bob", "carol", "erin", "dave", "frank"] {
        let tools = list(&mesh.client(user).await).await;
        check(&tools);
        let bytes = json!(tools).to_string().len();
        println!("{user}: {} tools, {bytes} bytes", tools.len());
        assert!(bytes < LIST_BYTES_MAX, "{user}: {bytes} bytes");
        checked.extend(tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()));
        for tool in &tools {
            let text = tool.to_string();
            assert!(!text.contains("drawbridge.mcp.v1") && !text.contains("$ref"), "{text}");
            assert!(tool["outputSchema"]["properties"]["input_required"].is_null(), "{text}");
        }
    }
    let lock =
        std::fs::read_to_string(drawbridge_tests::repository().join("policies/catalog.lock"));
    let lock: Value = serde_json::from_str(&lock.expect("the lock")).expect("JSON");
    let locked: Vec<_> = lock["tools"].as_object().expect("tools").keys().collect();
    assert_eq!(checked.iter().collect::<Vec<_>>(), locked, "every locked tool is checked");
}

#[tokio::test]
async fn every_tool_of_the_conformance_service_is_accepted_by_every_model_api() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let mut tools = list(&edge.client(&mesh.client("alice").await)).await;
    let before = tools.len();
    tools.retain(|tool| tool["name"] != GIVEN_BY_THE_SUITE);
    assert_eq!(tools.len() + 1, before);
    assert!(tools.len() > 20);
    check(&tools);
}

#[test]
fn each_rule_rejects_the_schemas_that_its_api_rejects() {
    let tool = |property: Value| {
        json!({
            "name": "a_tool", "description": "Does it.",
            "inputSchema": { "type": "object", "properties": { "a": property }, "additionalProperties": false },
        })
    };
    check(&[tool(json!({ "type": "string", "description": "A text.", "minLength": 1 }))]);
    for (property, api) in [
        (json!({ "type": "integer", "maximum": u64::MAX }), "OpenAI"),
        (json!({ "type": "integer", "minimum": i64::MIN }), "OpenAI"),
        (json!({ "type": "array" }), "OpenAI"),
        (json!({ "type": "string", "allOf": [{ "pattern": "a" }] }), "OpenAI, strict"),
        (
            json!({ "type": "object", "properties": { "b": { "type": "string" } } }),
            "OpenAI, strict",
        ),
        (json!({ "type": "object", "propertyNames": { "maxLength": 3 } }), "OpenAI, strict"),
        (json!({ "$ref": "#/$defs/A", "description": "An A." }), "OpenAI, strict"),
        (json!({ "type": "object", "properties": { "@type": { "type": "string" } } }), "Anthropic"),
        (json!({ "$ref": "#/$defs/A" }), "Anthropic"),
        (json!({ "type": ["string", "null"] }), "Gemini"),
        (json!({ "description": "Anything." }), "Gemini"),
        (json!({ "type": "string", "format": "email" }), "Gemini"),
        (json!({ "type": "integer", "exclusiveMinimum": 0 }), "Gemini"),
        (json!({ "type": "integer", "enum": [1, 2] }), "Gemini"),
        (json!({ "type": "string", "contentEncoding": "base64" }), "Gemini"),
        (
            json!({ "type": "array", "items": { "type": "string" }, "prefixItems": [] }),
            "VS Code and older clients",
        ),
    ] {
        let broken = broken_rules(&tool(property.clone()));
        assert!(
            broken.iter().any(|rule| rule.contains(&format!("({api})"))),
            "{property}: {broken:?}"
        );
    }
    for (tool, api) in [
        (json!({ "name": "a.b", "inputSchema": { "type": "object", "properties": {} } }), "OpenAI"),
        (
            json!({ "name": "a", "description": "x".repeat(1025), "inputSchema": { "type": "object" } }),
            "OpenAI",
        ),
        (json!({ "name": "a", "inputSchema": { "type": "object", "anyOf": [] } }), "Anthropic"),
    ] {
        let broken = broken_rules(&tool);
        assert!(broken.iter().any(|rule| rule.contains(&format!("({api})"))), "{tool}: {broken:?}");
    }
}

/// The table in docs/reference/contract.md is the list of rules.
#[test]
fn the_rules_are_documented() {
    let text =
        std::fs::read_to_string(drawbridge_tests::repository().join("docs/reference/contract.md"))
            .expect("the page");
    for api in APIS {
        assert!(text.contains(&format!("| {api} |")), "{api}");
    }
}
