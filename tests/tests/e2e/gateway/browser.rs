//! A real browser with pages of an allowed and of a foreign origin.

use std::{process::Stdio, time::Duration};

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse},
    routing::get,
};
use drawbridge_tests::{TestMesh, chromium, repository};
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command, time::timeout};

/// The time limit for the whole browser run, on a busy machine too.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(400);
const APP: &str = include_str!("../../../clients/browser/app.html");
const SCRIPT: &str = include_str!("../../../clients/browser/app.mjs");

/// Serves the page on this machine and returns its origin.
async fn serve() -> String {
    let script = async || ([(CONTENT_TYPE, "text/javascript")], SCRIPT).into_response();
    let router = Router::new().route("/", get(Html(APP))).route("/app.mjs", get(script));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = format!("http://localhost:{}", listener.local_addr().expect("an address").port());
    tokio::spawn(async move { axum::serve(listener, router).await });
    origin
}

async fn drive(mesh: &TestMesh, app: &str, foreign: &str) -> Value {
    let browser = Command::new("node")
        .arg(repository().join("tests/clients/browser/drive.mjs"))
        .arg("--browser")
        .arg(chromium())
        .args(["--mcp", mesh.mesh.mcp_url.as_str()])
        .args(["--app", &format!("{app}/"), "--foreign", &format!("{foreign}/")])
        .args(["--username", "alice", "--password", "alice"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node");
    let output = timeout(BROWSER_TIMEOUT, browser.wait_with_output())
        .await
        .expect("in time")
        .expect("an exit");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_signs_in_and_calls_tools_and_one_of_a_foreign_origin_can_read_nothing()
 {
    let (app, foreign) = (serve().await, serve().await);
    let mesh = TestMesh::with(|config| config.allowed_origins = vec![app.clone()]).await;
    let report = drive(&mesh, &app, &foreign).await;

    let page = &report["app"];
    // The sign-in page has its style, and its form redirects back to the app.
    assert_eq!((&page["styled"], &page["complaints"]), (&json!("8px"), &json!([])), "{page}");
    assert_eq!(page["backAt"], json!(app));
    let authorize = page["authorize"].as_str().expect("a URL");
    assert!(authorize.starts_with(mesh.mesh.state.issuer.as_str()), "{authorize}");
    let (older, newest) = (&page["seen"]["older"], &page["seen"]["newest"]);
    let tools: Vec<&str> =
        older["tools"].as_array().expect("tools").iter().filter_map(Value::as_str).collect();
    assert!(tools.contains(&"code_search"), "{tools:?}");
    assert_eq!(newest["tools"], older["tools"]);
    for found in [&older["found"], &newest["found"]] {
        assert_eq!(found["matches"].as_array().map(Vec::len), Some(1), "{found}");
    }
    assert_eq!(older["server"], "2025-11-25");
    assert_eq!(
        (&older["requestId"], &older["initialized"], &older["deleted"]),
        (&json!(true), &json!(202), &json!(true))
    );
    assert_eq!(older["events"], json!([200, "text/event-stream"]));
    assert!(
        newest["versions"].as_array().expect("versions").contains(&json!("2026-07-28")),
        "{newest}"
    );

    let foreign = &report["foreign"];
    // Not even with a token. A request without a preflight is answered, but the page cannot read
    // the response.
    let nothing = json!({
        "anonymously": "TypeError",
        "withAToken": "TypeError",
        "withoutAPreflight": "TypeError",
        "theMetadata": "TypeError",
        "blindly": "opaque 0",
    });
    assert_eq!(foreign["read"], nothing);
    // The app may be framed; the sign-in page and the edge may not.
    let framed = |name: &str| {
        (foreign["framed"][name]["title"].clone(), foreign["framed"][name]["refused"].clone())
    };
    assert_eq!(framed("app"), (json!("An application of another origin"), json!(false)));
    for name in ["signIn", "edge"] {
        assert_eq!(framed(name), (json!("127.0.0.1"), json!(true)), "{name}");
    }
}
