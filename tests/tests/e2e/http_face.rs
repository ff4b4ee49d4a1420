//! The edge's HTTP face: metadata, challenges, Host, Origin.

use drawbridge_tests::TestMesh;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn metadata_is_served_to_anybody_at_both_urls_and_comes_from_the_public_url() {
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
async fn a_client_that_looks_for_the_authorization_server_here_is_sent_there() {
    let mesh = TestMesh::start().await;
    let url = mesh.mesh.mcp_url.join("/.well-known/oauth-authorization-server").expect("a URL");
    let metadata: Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
    assert_eq!(metadata["issuer"], mesh.mesh.state.issuer.as_str().trim_end_matches('/'));
}

#[tokio::test]
async fn who_shows_no_token_is_told_where_to_get_one_before_anything_else() {
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
    // A GET is a client's try for an event stream.
    let response = reqwest::get(mesh.mesh.mcp_url.clone()).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal_or_says_that_it_ends() {
    let mesh = TestMesh::start().await;
    let anonymous = mesh.anonymous();
    // One connection after the other would fail now and then if it were closed without a word.
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
async fn the_endpoint_answers_with_and_without_a_trailing_slash() {
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
async fn a_foreign_host_is_refused_and_no_url_is_built_from_it() {
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
async fn only_an_allowed_origin_may_call_from_a_page() {
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
                r#"mcp_server_operation_duration_seconds_count{mcp_method_name="tools/call",gen_ai_tool_name="code_list_files"} 1"#
            }
            "auth" => "auth_decisions_total",
            "idp" => "http_server_request_duration_seconds",
            _ => "rpc_server_call_duration_seconds",
        };
        assert!(metrics.contains(expected), "{}: {metrics}", service.telemetry.service());
    }
}
