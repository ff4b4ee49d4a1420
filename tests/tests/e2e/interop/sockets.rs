//! Services connected by Unix-domain sockets.

use std::{fs, path::Path};

use drawbridge_mesh::HostedService;
use drawbridge_runtime::{GrpcUrl, Listen, TelemetryConfig};
use drawbridge_tests::{TestMesh, conformance::Conformance, serve_conformance};
use serde_json::json;

fn at(folder: &Path, name: &str) -> (GrpcUrl, Listen) {
    let text = format!("unix:{}", folder.join(name).display());
    (text.parse().expect("a socket"), text.parse().expect("a socket"))
}

#[tokio::test]
async fn the_edge_reaches_auth_and_a_tool_service_over_unix_sockets() {
    let folder = tempfile::tempdir().expect("a folder");
    let (auth_url, auth_listen) = at(folder.path(), "auth.sock");
    let (url, listen) = at(folder.path(), "test.sock");
    let mesh = TestMesh::with(serve_conformance).await;
    let auth = mesh.auth(|config| config.listen = auth_listen);
    let auth_hosted = auth.start().await;
    assert_eq!(auth_hosted.running.address.to_string(), auth_url.to_string());
    let (telemetry, keys) = (TelemetryConfig::default(), auth.keys.clone());
    let hosted = HostedService::start("conformance", &telemetry, |telemetry| async move {
        Conformance::default().start(listen, keys, &telemetry).await
    });
    let hosted = hosted.await.expect("the service");
    // Health checks, reflection and calls use one socket, and every decision the other.
    let edge = mesh.edge(&[("test", &url)], |config| config.auth_urls = vec![auth_url]).await;
    let alice = edge.client(&mesh.client("alice").await);
    let reply = alice.call_tool("test_echo_values", json!({ "int64": 7 })).await;
    assert_eq!(reply.json["result"]["structuredContent"]["int64"], 7, "{reply:?}");
    let files = || fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(files(), 2);
    edge.hosted.stop().await;
    hosted.stop().await;
    auth_hosted.stop().await;
    assert_eq!(files(), 0, "each service removes its socket");
}
