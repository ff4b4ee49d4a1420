//! A default edge behind a proxy with a common configuration.

use std::time::Duration;

use drawbridge_tests::{Proxy, ProxyMode, TestMesh, serve_conformance};
use serde_json::json;

use crate::mcp::sessions::open;

/// Longer than the proxy's idle timeout.
const SILENT_MS: u32 = 6_500;

#[tokio::test]
async fn a_silent_call_outlasts_a_proxy_that_closes_connections_idle_for_5_seconds() {
    let mesh = TestMesh::with(serve_conformance).await;
    let proxy = Proxy::bind(ProxyMode::ClosesIdle(Duration::from_secs(5))).await;
    let (_, _service, edge) =
        mesh.conformance(|config| config.allowed_hosts.push(proxy.authority())).await;
    let alice = mesh.client("alice").await.at(&proxy.forward(&edge.url));
    let session = open(&alice).await;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "test_slow_work", "arguments": { "milliseconds": SILENT_MS } },
    });
    let in_session = alice.post().header("mcp-session-id", session).body(call.to_string());
    let (alone, in_session) =
        tokio::join!(alice.send_body(call.to_string()), alice.send(in_session));
    for reply in [alone, in_session] {
        assert_eq!(reply.message(), "worked", "{reply:?}");
    }
}
