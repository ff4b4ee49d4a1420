//! Receivers that services send their audit logs to.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::State, routing::post};
use tokio::net::TcpListener;

use super::*;

type Received = Arc<Mutex<Vec<String>>>;

/// A receiver of JSON lines at `/audit`.
async fn receiver() -> (Received, reqwest::Url) {
    let received = Received::default();
    let take = async |State(received): State<Received>, body: String| {
        let mut received = received.lock().expect("no panic");
        received.extend(body.lines().map(str::to_owned));
    };
    let router = Router::new().route("/audit", post(take)).with_state(Arc::clone(&received));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/audit", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (received, url.parse().expect("a URL"))
}

/// Copies of all logs are at the receiver when the services have stopped, and verify there.
#[tokio::test]
async fn a_receiver_has_the_logs_of_all_services_when_they_have_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let (received, url) = receiver().await;
    let mesh = TestMesh::with(|config| {
        config.audit = audit(folder.path());
        config.audit.sinks.audit_http_url = Some(url);
    })
    .await;
    let bob = mesh.client("bob").await;
    let reply = bob.call_tool("tickets_search", json!({})).await;
    assert_eq!(reply.status, StatusCode::OK);
    mesh.stop().await;

    let copy = tempfile::tempdir().expect("a folder");
    let lines = received.lock().expect("no panic").clone();
    for service in ["auth", "edge", "idp"] {
        let of = format!("\"log\":\"{service}/");
        let own: String = lines
            .iter()
            .filter(|line| line.contains(&of))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(own.contains("\"event\":\"stop\""), "{service}: {own}");
        fs::write(copy.path().join(format!("{service}.jsonl")), own).expect("a file");
    }
    assert!(lines.iter().any(|line| line.contains(reply.request_id())));
    let reports = verify(&[copy.path().to_owned()], &[], |_| {}).expect("logs");
    assert_eq!(reports.len(), 3);
    for (report, original) in
        reports.iter().zip(verify(&[folder.path().to_owned()], &[], |_| {}).expect("logs"))
    {
        assert!(report.problems.is_empty(), "{report:?}");
        assert_eq!((report.size, &report.log), (original.size, &original.log));
    }
}
