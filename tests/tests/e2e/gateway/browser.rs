//! A real browser, with a page of another origin.

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

/// The longest that the browser may take with all of it, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(400);
const APP: &str = include_str!("../../../clients/browser/app.html");
const SCRIPT: &str = include_str!("../../../clients/browser/app.mjs");

/// Serves the page under a name of its own for this machine, and says where.
async fn serve() -> String {
    let script = async || ([(CONTENT_TYPE, "text/javascript")], SCRIPT).into_response();
    let router = Router::new().route("/", get(Html(APP))).route("/app.mjs", get(script));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = format!("http://localhost:{}", listener.local_addr().expect("an address").port());
    tokio::spawn(async move { axum::serve(listener, router).await });
    origin
}

async fn drive(mesh: &TestMesh, app: &str, stranger: &str) -> Value {
    let browser = Command::new("node")
        .arg(repository().join("tests/clients/browser/drive.mjs"))
        .arg("--browser")
        .arg(chromium())
        .args(["--mcp", mesh.mesh.mcp_url.as_str()])
        .args(["--app", &format!("{app}/"), "--stranger", &format!("{stranger}/")])
        .args(["--username", "alice", "--password", "alice"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node");
    let output =
        timeout(PATIENCE, browser.wait_with_output()).await.expect("in time").expect("an end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_signs_in_and_calls_tools_and_one_of_another_origin_can_do_nothing()
 {
    let (app, stranger) = (serve().await, serve().await);
    let mesh = TestMesh::with(|config| config.allowed_origins = vec![app.clone()]).await;
    let seen = drive(&mesh, &app, &stranger).await;

    let page = &seen["app"];
    // The sign-in page shows itself as it is meant, and the answer to its form leads back.
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
        (&older["requestId"], &older["told"], &older["deleted"]),
        (&json!(true), &json!(202), &json!(true))
    );
    assert_eq!(older["events"], json!([200, "text/event-stream"]));
    assert!(
        newest["versions"].as_array().expect("versions").contains(&json!("2026-07-28")),
        "{newest}"
    );

    let stranger = &seen["stranger"];
    // Not even with a token; and what goes without a preflight gets an answer that nobody reads.
    let nothing = json!({
        "anonymously": "TypeError",
        "withAToken": "TypeError",
        "withoutAPreflight": "TypeError",
        "theMetadata": "TypeError",
        "blindly": "opaque 0",
    });
    assert_eq!(stranger["read"], nothing);
    // What anybody may frame shows itself, and these two do not.
    let framed = |name: &str| {
        (stranger["framed"][name]["title"].clone(), stranger["framed"][name]["refused"].clone())
    };
    assert_eq!(framed("app"), (json!("An application of another origin"), json!(false)));
    for name in ["signIn", "edge"] {
        assert_eq!(framed(name), (json!("127.0.0.1"), json!(true)), "{name}");
    }
}
