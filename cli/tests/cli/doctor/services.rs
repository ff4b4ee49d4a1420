use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode, header::WWW_AUTHENTICATE},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{Report, file, issuers::serve};
use crate::{Up, drawbridge};

/// An edge that answers a POST so, with this metadata.
fn edge(status: u16, has_challenge: bool, metadata: impl FnOnce(&str) -> Option<Value>) -> String {
    let url = serve(|url| {
        let status = StatusCode::from_u16(status).expect("a status");
        let path = "/.well-known/oauth-protected-resource/mcp";
        let challenge = format!("Bearer resource_metadata=\"{url}{path}\"");
        let mut headers = HeaderMap::new();
        if has_challenge {
            headers.insert(WWW_AUTHENTICATE, challenge.parse().expect("a header"));
        }
        let router = Router::new().route("/mcp", post(move || async move { (status, headers) }));
        match metadata(&format!("{url}/mcp")) {
            Some(metadata) => router.route(path, get(move || async move { Json(metadata) })),
            None => router,
        }
    });
    format!("{url}/mcp")
}

fn document(resource: &str) -> Value {
    json!({ "resource": resource, "authorization_servers": ["http://127.0.0.1:1"] })
}

#[test]
fn a_public_url_that_clients_cannot_use_is_found() {
    let check = |url: &str| Report::of(&["--public-url", url]);
    let good = edge(401, true, |url| Some(document(url)));
    check(&good).has("edge", "ok", "clients get tokens from http://127.0.0.1:1", "");
    check("http://127.0.0.1:1/mcp").has("edge", "failed", "cannot be reached", "edge runs");
    let open = edge(200, true, |url| Some(document(url)));
    check(&open).has("edge", "failed", "is answered 200", "no proxy answers in its place");
    let stripped = edge(401, false, |url| Some(document(url)));
    check(&stripped).has("edge", "failed", "no WWW-Authenticate", "a proxy before the edge");
    let unrouted = edge(401, true, |_| None);
    check(&unrouted).has("edge", "failed", "its metadata at", "behind-a-proxy.md");
    let other = edge(401, true, |_| Some(document("https://mcp.acme.example/mcp")));
    let report = check(&other);
    report.has(
        "edge",
        "failed",
        "of the resource \"https://mcp.acme.example/mcp\"",
        "--public-url",
    );
    let nothing = edge(401, true, |url| Some(json!({ "resource": url })));
    check(&nothing).has(
        "edge",
        "failed",
        "names no authorization server",
        "--authorization-server",
    );
    // Auth accepts tokens of another issuer.
    let report = Report::of(&["--public-url", &good, "--issuer", "http://127.0.0.1:2"]);
    report.has("edge", "failed", "is no issuer of auth", "--authorization-server");
}

#[test]
fn an_audience_of_auth_that_is_not_the_edges_is_found() {
    let url = edge(401, true, |url| Some(document(url)));
    let check = |audience: &str| {
        Report::of_variables(
            &format!(
                "DRAWBRIDGE_EDGE_PUBLIC_URL={url}\n\
                 DRAWBRIDGE_EDGE_AUTHORIZATION_SERVER=http://127.0.0.1:1\n\
                 DRAWBRIDGE_EDGE_SERVICE=code=http://127.0.0.1:1\n\
                 DRAWBRIDGE_AUTH_ISSUER=http://127.0.0.1:1\n\
                 DRAWBRIDGE_AUTH_AUDIENCE={audience}\n"
            ),
            &[],
        )
    };
    let base = url.trim_end_matches("/mcp");
    for audience in
        [url.as_str(), &format!("{url}/"), base, &format!("https://a.example/mcp,{url}")]
    {
        check(audience).has("edge", "ok", "auth accepts tokens for this audience", "");
    }
    for audience in ["https://a.example/mcp", &format!("{url}/code"), &format!("{base}/mc")] {
        let report = check(audience);
        report.has("edge", "failed", "auth accepts no token for it", &format!("name {url} in"));
    }
}

/// An admin port that answers so.
fn admin(status: u16, ready: Value, metrics: &'static str) -> String {
    serve(|_| {
        let status = StatusCode::from_u16(status).expect("a status");
        Router::new()
            .route("/readyz", get(move || async move { (status, Json(ready)) }))
            .route("/metrics", get(move || async move { metrics }))
    })
}

#[test]
fn a_service_that_is_not_ready_degraded_or_of_another_version_is_found() {
    let current = "drawbridge_build_info{version=\"0.1.0\",commit=\"\"} 1\n";
    let url = admin(200, json!({ "ready": true }), current);
    let report = Report::of(&["--admin", &format!("edge-1={url}")]);
    report.has("service", "ok", "ready", "");
    assert_eq!(report.code, Some(0), "{:#}", report.output);
    assert_eq!(report.output["checks"][0]["subject"], "edge-1");

    let reason = "auth: no replica can be asked";
    let url = admin(503, json!({ "ready": false, "reason": reason }), current);
    let report = Report::of(&["--admin", &url]);
    report.has("service", "failed", reason, "docs/reference/readiness.md");
    let notes = json!({ "ready": true, "notes": { "redis": "cannot be reached" } });
    let report = Report::of(&["--admin", &admin(200, notes, current)]);
    report.has("service", "warning", "redis: cannot be reached", "it serves without");
    assert_eq!(report.code, Some(0), "{:#}", report.output);
    let next = admin(200, json!({ "ready": true }), "drawbridge_build_info{version=\"0.2.3\"} 1\n");
    Report::of(&["--admin", &next]).has("service", "warning", "0.2.3", "finish the upgrade");
    let newer =
        admin(200, json!({ "ready": true }), "drawbridge_build_info{version=\"9.0.0\"} 1\n");
    assert_eq!(Report::of(&["--admin", &next, "--strict"]).code, Some(1));
    Report::of(&["--admin", &newer]).has("service", "failed", "9.0.0", "docs/how-to/deploy.md");
    let other = serve(|_| Router::new());
    let report = Report::of(&["--admin", &other]);
    report.has("service", "failed", "answered 404 Not Found without JSON", "--admin-listen");
}

#[test]
fn a_tool_service_that_is_away_and_a_lock_that_differs_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = std::fs::read_to_string(format!("{}/policies/catalog.lock", crate::REPOSITORY));
    let mut lock: Value = serde_json::from_str(&lock.expect("the lock")).expect("JSON");
    lock["tools"].as_object_mut().expect("tools").remove("code_search");
    file(&folder, "catalog.lock", &lock.to_string());
    let config = "[catalog]\nlock = \"catalog.lock\"\nmode = \"warn\"\n";
    let config = file(&folder, "edge.toml", config);
    let up = Up::with(&["--embedded", "--config", &config]);
    let report = Report::with(drawbridge(up.state.path()), &[]);
    report.has("catalog lock", "failed", "tool code_search", "drawbridge catalog lock --check");
    up.stop();

    let report = Report::of_variables(
        "DRAWBRIDGE_EDGE_AUTHORIZATION_SERVER=http://127.0.0.1:1\n\
         DRAWBRIDGE_EDGE_SERVICE=rooms=http://127.0.0.1:1\n\
         DRAWBRIDGE_EDGE_PUBLIC_URL=http://127.0.0.1:1/mcp\n",
        &[],
    );
    report.has("service", "failed", "http://127.0.0.1:1/: ", "--mtls-allow");
}
