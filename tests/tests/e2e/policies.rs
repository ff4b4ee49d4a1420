//! Cedar policies decide which tools are listed and which calls are permitted.

mod bundles;

use drawbridge_tests::TestMesh;
use http::StatusCode;
use serde_json::json;

use crate::gateway::limits::until;

#[tokio::test]
async fn a_hidden_tool_is_rejected_too_until_its_policy_is_edited() {
    let mesh = TestMesh::start().await;
    assert_eq!(mesh.client("alice").await.tools().await, ["code_list_files", "code_search"]);

    let bob = mesh.client("bob").await;
    assert!(bob.tools().await.iter().all(|tool| tool.starts_with("tickets_")));
    let refused = bob.call_tool("code_search", json!({ "query": "fn main" })).await;
    assert!(refused.is_hidden(), "{refused:?}");
    assert_eq!(refused.json["id"], 1);
    refused.assert_names_request();
    assert!(mesh.log().contains(r#""outcome":"not_permitted""#), "the denial is not in the log");

    mesh.edit_policy("code.cedar", r#"Group::"engineering""#, r#"Group::"support""#);
    let mesh = mesh.restart().await;
    let bob = mesh.client("bob").await;
    assert!(
        bob.tools().await.starts_with(&["code_list_files".to_owned(), "code_search".to_owned()])
    );
    let allowed = bob.call_tool("code_search", json!({ "query": "fn main" })).await;
    assert_eq!((allowed.status, allowed.error_code()), (StatusCode::OK, None), "{allowed:?}");
    assert!(mesh.client("alice").await.tools().await.is_empty());
}

/// How many lists auth has filtered.
async fn filtered_lists(mesh: &TestMesh) -> u64 {
    let services = &mesh.mesh.services;
    let auth = services.iter().find(|service| service.telemetry.service() == "auth").expect("auth");
    let metrics = reqwest::get(format!("http://{}/metrics", auth.running.admin)).await;
    let metrics = metrics.expect("metrics").text().await.expect("a text");
    let counts = metrics.lines().filter(|line| {
        line.starts_with("rpc_server_call_duration_seconds_count") && line.contains("FilterCatalog")
    });
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn a_list_is_decided_once_per_caller_until_the_policies_change() {
    const CODE: [&str; 2] = ["code_list_files", "code_search"];
    let mesh = TestMesh::start().await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    let before = filtered_lists(&mesh).await;
    for _ in 0..3 {
        assert_eq!(alice.tools().await, CODE);
    }
    let after = filtered_lists(&mesh).await;
    assert_eq!(after, before + 1);
    assert!(bob.tools().await.iter().all(|tool| tool.starts_with("tickets_")));
    assert_eq!(filtered_lists(&mesh).await, after + 1, "another caller has another list");

    mesh.edit_policy("code.cedar", r#"Group::"engineering""#, r#"Group::"support""#);
    until("the edit", async || alice.tools().await.is_empty()).await;
    assert!(bob.tools().await.starts_with(&CODE.map(ToOwned::to_owned)));
}

#[tokio::test]
async fn a_hidden_tools_arguments_are_not_validated_for_the_caller() {
    let mesh = TestMesh::start().await;
    let bob = mesh.client("bob").await;
    let refused = bob.call_tool("code_search", json!({ "nonsense": 1 })).await;
    assert!(refused.is_hidden(), "{refused:?}");
    assert!(!refused.text.contains("nonsense"));
}

#[tokio::test]
async fn a_guardrail_on_an_argument_covers_every_spelling() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    for uri in ["code://deploy/tls.key", "code://deploy%2Ftls.key", "code://deploy/tls.%6Bey"] {
        let refused = alice.call("resources/read", json!({ "uri": uri })).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{uri}");
        assert_eq!(refused.json["error"]["data"]["reason"], "policy_denied");
        assert!(!refused.text.contains("code-no-secrets"), "{refused:?}");
    }
    // The service rejects spellings that policy would not recognize as the same path.
    for uri in [
        "code://deploy/tls.key/",
        "code://deploy/tls.key/.",
        "code://deploy//tls.key/",
        "code://./deploy/tls.key/",
    ] {
        let refused = alice.call("resources/read", json!({ "uri": uri })).await;
        assert!(
            refused.message().contains("must be written as `deploy/tls.key`"),
            "{uri}: {refused:?}"
        );
    }
    let bob = mesh.client("bob").await;
    let refused = bob.call("resources/read", json!({ "uri": "code://Cargo.toml" })).await;
    assert!(refused.is_hidden(), "{refused:?}");
    let templates = bob.call("resources/templates/list", json!({})).await;
    let templates = templates.json["result"]["resourceTemplates"].as_array().expect("templates");
    assert!(templates.iter().all(|template| template["name"] == "tickets_ticket"), "{templates:?}");
}

#[tokio::test]
async fn without_auth_every_request_is_rejected_as_retryable() {
    let mut mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let position =
        mesh.mesh.services.iter().position(|service| service.telemetry.service() == "auth");
    mesh.mesh.services.remove(position.expect("auth")).stop().await;
    for method in ["tools/list", "ping"] {
        let reply = alice.call(method, json!({})).await;
        assert_eq!(
            (reply.status, reply.error_code()),
            (StatusCode::SERVICE_UNAVAILABLE, Some(-32053))
        );
        assert_eq!(reply.headers["retry-after"], "1");
        reply.assert_names_request();
    }
    let call = alice.call_tool("code_search", json!({ "query": "fn main" })).await;
    assert_eq!(call.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn tools_of_a_service_that_is_down_stay_listed_and_their_calls_fail_retryably() {
    let mut mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let position =
        mesh.mesh.services.iter().position(|service| service.telemetry.service() == "code");
    mesh.mesh.services.remove(position.expect("code")).stop().await;
    assert_eq!(alice.tools().await, ["code_list_files", "code_search"]);
    let reply = alice.call_tool("code_search", json!({ "query": "fn main" })).await;
    assert_eq!((reply.status, reply.error_code()), (StatusCode::OK, Some(-32053)), "{reply:?}");
    assert_eq!(reply.json["error"]["data"]["retryable"], true);
    reply.assert_names_request();
}
