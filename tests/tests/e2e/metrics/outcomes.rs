//! How requests ended, by tool and by HTTP status.

use http::StatusCode;

use super::*;

/// The values of a scrape of the edge whose lines begin so, without the labels of buckets.
async fn scrape_edge(mesh: &TestMesh) -> String {
    let edge = mesh.mesh.service("edge").expect("an edge");
    let url = format!("http://{}/metrics", edge.running.admin);
    reqwest::get(url).await.expect("metrics").text().await.expect("metrics")
}

fn check_count(scrape: &str, method: &str, tool: &str, error_type: &str, count: usize) {
    let labels = format!(
        "mcp_method_name=\"{method}\",gen_ai_tool_name=\"{tool}\",error_type=\"{error_type}\""
    );
    let line = format!("mcp_server_operation_duration_seconds_count{{{labels}}} {count}");
    let all: Vec<_> =
        scrape.lines().filter(|line| line.contains("duration_seconds_count")).collect();
    assert!(all.contains(&line.as_str()), "no line {line} in {all:#?}");
}

#[tokio::test]
async fn each_request_is_counted_once_by_tool_and_outcome() {
    let mesh = TestMesh::start().await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    alice.call_tool("code_list_files", json!({})).await;
    alice.call_tool("code_list_files", json!({})).await;
    alice.call_tool("code_search", json!({ "query": "x", "path": "missing" })).await;
    alice.call_tool("code_search", json!({ "query": ["x"] })).await;
    alice.call_tool("no_such_tool", json!({})).await;
    bob.call_tool("code_list_files", json!({})).await;
    alice.call("tools/list", json!({})).await;
    alice.call("no/such/method", json!({})).await;
    let refused = mesh.anonymous().call("tools/list", json!({})).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);

    let scrape = scrape_edge(&mesh).await;
    check_count(&scrape, "tools/call", "code_list_files", "", 2);
    check_count(&scrape, "tools/call", "code_list_files", "policy_denied", 1);
    check_count(&scrape, "tools/call", "code_search", "tool_error", 1);
    check_count(&scrape, "tools/call", "code_search", "invalid_arguments", 1);
    check_count(&scrape, "tools/call", "", "unknown_item", 1);
    check_count(&scrape, "tools/list", "", "", 1);
    check_count(&scrape, "other", "", "-32601", 1);
    check_count(&scrape, "other", "", "unauthenticated", 1);
    let posts = "http_server_request_duration_seconds_count{http_request_method=\"POST\",\
                 http_route=\"/mcp\",http_response_status_code=";
    for line in [format!("{posts}\"200\"}} 8"), format!("{posts}\"401\"}} 1")] {
        assert!(scrape.contains(&line), "no line {line} in {scrape}");
    }
    // What a client names is no label.
    assert!(!scrape.contains("no_such_tool") && !scrape.contains("no/such/method"), "{scrape}");
}

#[tokio::test]
async fn counters_of_rare_events_are_scraped_before_the_first_event() {
    let mesh = TestMesh::start().await;
    let scrape = scrape_edge(&mesh).await;
    for line in [
        "edge_refusals_total{reason=\"rate_limited\"} 0",
        "edge_config_reloads_failed_total 0",
        "edge_request_wait_seconds_count 0",
        "drawbridge_draining 0",
    ] {
        assert!(scrape.lines().any(|found| found == line), "no line {line} in {scrape}");
    }
}

#[tokio::test]
async fn sessions_and_streams_are_counted_while_they_are_open() {
    let mesh = TestMesh::start().await;
    let client = mesh.client("alice").await;
    let has = async |line: &str| scrape_edge(&mesh).await.lines().any(|found| found == line);
    assert!(has("mcp_server_sessions 0").await && has("mcp_server_streams 0").await);
    let opened = client
        .call(
            "initialize",
            json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": { "name": "test", "version": "1" },
            }),
        )
        .await;
    assert!(has("mcp_server_sessions 1").await, "{opened:?}");
}
