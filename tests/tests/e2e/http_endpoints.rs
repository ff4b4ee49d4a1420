//! The edge's HTTP endpoints: metadata, challenges, Host, Origin.

use drawbridge_tests::TestMesh;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn metadata_is_public_at_both_urls_and_built_from_the_public_url() {
    let mesh = TestMesh::start().await;
    let http = reqwest::Client::new();
    let mut documents = Vec::new();
    for path in
        ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"]
    {
        let url = mesh.mesh.mcp_url.join(path).expect("a URL");
        let response = http.get(url).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        documents.push(response.json::<Value>().await.expect("JSON"));
    }
    assert_eq!(documents[0], documents[1]);
    assert_eq!(documents[0]["resource"], mesh.mesh.mcp_url.as_str());
    let issuer = mesh.mesh.state.issuer.as_str().trim_end_matches('/');
    assert_eq!(documents[0]["authorization_servers"], json!([issuer]));
}

#[tokio::test]
async fn a_client_may_choose_between_several_authorization_servers() {
    let mesh = TestMesh::start().await;
    let edge = mesh
        .edge(&[], |config| config.authorization_servers.push("https://b.example/".to_owned()))
        .await;
    let url = edge.url.join("/.well-known/oauth-protected-resource/mcp").expect("a URL");
    let document: Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
    let first = mesh.mesh.state.issuer_name();
    assert_eq!(document["authorization_servers"], json!([first, "https://b.example/"]));
}

#[tokio::test]
async fn the_edge_serves_the_metadata_of_its_authorization_server() {
    let mesh = TestMesh::start().await;
    let url = mesh.mesh.mcp_url.join("/.well-known/oauth-authorization-server").expect("a URL");
    let metadata: Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
    assert_eq!(metadata["issuer"], mesh.mesh.state.issuer.as_str().trim_end_matches('/'));
}

#[tokio::test]
async fn a_request_without_a_token_gets_a_challenge_before_any_other_error() {
    let mesh = TestMesh::start().await;
    let anonymous = mesh.anonymous();
    let expected = format!(
        r#"Bearer resource_metadata="{}", scope="mcp""#,
        mesh.mesh.mcp_url.join("/.well-known/oauth-protected-resource/mcp").expect("a URL")
    );
    for body in
        [json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize" }).to_string(), "{".to_owned()]
    {
        let reply = anonymous.send_body(body).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.headers["www-authenticate"], expected.as_str());
        reply.assert_names_request();
    }
    // A client opens an event stream with GET.
    let response = reqwest::get(mesh.mesh.mcp_url.clone()).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_connection_stays_open_after_a_rejection_or_announces_its_close() {
    let mesh = TestMesh::start().await;
    let anonymous = mesh.anonymous();
    // Requests would fail now and then if the edge closed connections without announcing it.
    for size in [0, 1_000, 20_000, 60_000] {
        for _ in 0..25 {
            let reply = anonymous.send_body("x".repeat(size)).await;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
            assert!(!reply.headers.contains_key("connection"), "{reply:?}");
        }
    }
    let large = anonymous.send_body("x".repeat(100_000)).await;
    assert_eq!(
        (large.status, &large.headers["connection"]),
        (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("close"))
    );
}

#[tokio::test]
async fn the_endpoint_is_served_with_and_without_a_trailing_slash() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let mut url = mesh.mesh.mcp_url.clone();
    url.set_path("/mcp/");
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let request = alice.post().body(ping).build().map(|mut request| {
        *request.url_mut() = url;
        request
    });
    let reply = alice.send_built(request).await;
    assert_eq!((reply.status, &reply.json["result"]), (StatusCode::OK, &json!({})));
}

#[tokio::test]
async fn a_foreign_host_is_rejected_and_no_url_is_built_from_it() {
    let mesh = TestMesh::start().await;
    let request = mesh.anonymous().post().body("{}").build().map(|mut request| {
        request.headers_mut().insert("host", HeaderValue::from_static("evil.example"));
        request
    });
    let reply = mesh.anonymous().send_built(request).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(
        !reply.headers.values().any(|value| value.to_str().unwrap_or_default().contains("evil"))
    );
    assert!(!reply.text.contains("evil"));
    reply.assert_names_request();
}

#[tokio::test]
async fn only_pages_of_an_allowed_origin_may_call() {
    let allowed = "https://app.example";
    let mesh = TestMesh::with(|config| config.allowed_origins = vec![allowed.to_owned()]).await;
    let alice = mesh.client("alice").await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    for (origin, status) in [
        (allowed, StatusCode::OK),
        ("https://evil.example", StatusCode::FORBIDDEN),
        ("https://app.example.evil.example", StatusCode::FORBIDDEN),
        ("http://app.example", StatusCode::FORBIDDEN),
        ("null", StatusCode::FORBIDDEN),
    ] {
        let reply = alice.send(alice.post().header("origin", origin).body(ping.clone())).await;
        assert_eq!(reply.status, status, "{origin}");
    }
    // A browser's preflight carries no token.
    let preflight = reqwest::Client::new()
        .request(http::Method::OPTIONS, mesh.mesh.mcp_url.clone())
        .header("origin", allowed)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,mcp-protocol-version,mcp-param-region",
        )
        .send()
        .await
        .expect("an answer");
    assert_eq!(preflight.status(), StatusCode::OK);
    assert_eq!(preflight.headers()["access-control-allow-origin"], allowed);
}

#[tokio::test]
async fn health_readiness_and_metrics_are_on_the_admin_port_of_every_service() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    alice.call_tool("code_list_files", json!({})).await;
    for service in &mesh.mesh.services {
        let get = async |path: &str| {
            let response = reqwest::get(format!("http://{}{path}", service.running.admin))
                .await
                .expect("an answer");
            (response.status(), response.text().await.expect("a text"))
        };
        assert_eq!(get("/healthz").await.0, StatusCode::OK);
        assert_eq!(get("/readyz").await.0, StatusCode::OK);
        let (status, metrics) = get("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        let expected = match service.telemetry.service() {
            "edge" => {
                r#"mcp_server_operation_duration_seconds_count{mcp_method_name="tools/call",gen_ai_tool_name="code_list_files",error_type=""} 1"#
            }
            "auth" => "auth_decisions_total",
            "idp" => "http_server_request_duration_seconds",
            _ => "rpc_server_call_duration_seconds",
        };
        assert!(metrics.contains(expected), "{}: {metrics}", service.telemetry.service());
    }
}
