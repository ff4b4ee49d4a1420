//! The edge's pages for browsers.

use drawbridge_tests::TestMesh;
use http::{StatusCode, header};

/// The Accept header of a navigation in Chrome and Firefox.
const NAVIGATION: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn open(url: url::Url) -> reqwest::Response {
    let request = reqwest::Client::new().get(url).header(header::ACCEPT, NAVIGATION);
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn a_browser_at_the_edge_gets_instructions_to_connect_a_client() {
    let mesh = TestMesh::start().await;
    let mcp = mesh.mesh.mcp_url.clone();
    for (path, status, endpoint) in [
        ("/", StatusCode::OK, ""),
        ("/mcp", StatusCode::UNAUTHORIZED, ""),
        ("/mcp/", StatusCode::UNAUTHORIZED, ""),
        ("/mcp/code", StatusCode::UNAUTHORIZED, "/code"),
        ("/mcp/%3Cscript%3E", StatusCode::UNAUTHORIZED, ""),
    ] {
        let response = open(mcp.join(path).expect("a URL")).await;
        assert_eq!(response.status(), status, "{path}");
        let headers = response.headers().clone();
        let content_type = headers[header::CONTENT_TYPE].to_str().expect("text");
        assert!(content_type.starts_with("text/html"), "{path}: {content_type}");
        assert_eq!(
            headers.contains_key(header::WWW_AUTHENTICATE),
            status == StatusCode::UNAUTHORIZED
        );
        assert!(headers.contains_key(header::CONTENT_SECURITY_POLICY), "{path}");
        let page = response.text().await.expect("a page");
        let command = format!("claude mcp add --transport http drawbridge {mcp}{endpoint}<");
        assert!(page.contains(&command), "{path}: {page}");
        assert!(!page.contains("script"), "{path}: {page}");
        let (_, link) = page.split_once("href=\"").expect("a link");
        let link = mcp.join(link.split_once('"').expect("its end").0).expect("a URL");
        let metadata = reqwest::get(link).await.expect("an answer");
        assert_eq!(metadata.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_client_gets_a_challenge_and_no_page() {
    let mesh = TestMesh::start().await;
    for accept in ["application/json, text/event-stream", "text/event-stream", "*/*"] {
        let request =
            reqwest::Client::new().get(mesh.mesh.mcp_url.clone()).header(header::ACCEPT, accept);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{accept}");
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE), "{accept}");
        response.json::<serde_json::Value>().await.expect("JSON");
    }
}
