//! What a call needs beside auth and its service: Redis, programs of the config file, Vault, and an
//! API of others.

use std::fs;

use drawbridge_credentials::VaultConfig;
use drawbridge_tests::{REPLICA_SECRET, Redis};
use wiremock::MockServer;

use super::*;
use crate::{
    gateway::limits::{metric, until},
    tickets::helpdesks::{serve, store_token, vault},
};

/// A limit in Redis, and a program in each direction.
const CONFIG: &str = r#"
[limits]
redis_timeout_ms = 5000
[[limit]]
name = "each"
by = "principal"
rate = 1000
per_seconds = 60
[[tool]]
name = "tickets_search"
request = ".page_size = 2"
response = '{ tickets: [.tickets[] | { id: .ticket_id }] }'
"#;

/// Asserts what a span is, and returns it.
#[track_caller]
fn check(
    spans: &[Span],
    (service, name, kind): (&str, &str, &str),
    parent: &Span,
    attributes: &[(&str, &str)],
) -> Span {
    let span = one(spans, service, name);
    assert_eq!((span.kind, &span.parent_id), (kind, &parent.span_id), "{span:#?}");
    assert!(!span.is_error, "{span:#?}");
    for (name, value) in attributes {
        assert_eq!(span.attribute(name), Some(*value), "{name} of {span:#?}");
    }
    span
}

#[tokio::test]
async fn redis_programs_vault_and_the_helpdesk_are_spans_of_the_call() {
    let redis = Redis::start().await;
    let (collector, url) = Collector::start().await;
    let mesh = TestMesh::with(|config| config.telemetry.otlp_endpoint = Some(url)).await;
    let (vault, helpdesk) = (vault(&mesh).await, MockServer::start().await);
    serve(&helpdesk, "a ticket", "token-of-acme").await;
    store_token(&vault, "acme", &helpdesk, "token-of-acme").await;
    let (service, first_edge) = mesh.tickets(VaultConfig::new(vault.url.clone())).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    fs::write(&file, CONFIG).expect("a file");
    let tickets = mesh.grpc_url(&service.running.address);
    let edge = mesh
        .edge(&[("tickets", &tickets)], |config| {
            config.config = Some(file);
            config.redis_url = Some(redis.url.as_str().into());
            config.secret = Some(REPLICA_SECRET.into());
        })
        .await;
    until("Redis", async || {
        metric(&edge, "edge_limits_redis_available").await.as_deref() == Some("1")
    })
    .await;
    let bob = edge.client(&mesh.client("bob").await);
    bob.tools().await;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "tickets_search", "arguments": {} },
    });
    let request = bob.post().header("traceparent", traceparent(TRACE, "01"));
    let reply = bob.send(request.body(call.to_string())).await;
    let found = &reply.json["result"]["structuredContent"];
    assert_eq!(*found, json!({ "tickets": [{ "id": "7" }] }), "{reply:?}");
    let received = helpdesk.received_requests().await.expect("requests");
    for hosted in [edge.hosted, first_edge.hosted, service] {
        hosted.stop().await;
    }
    mesh.stop().await;

    let spans = collector.trace(TRACE);
    let call = one(&spans, "edge", "tools/call tickets_search");
    let redis = [("db.system.name", "redis"), ("db.operation.name", "EVALSHA")];
    check(&spans, ("edge", "EVALSHA", "client"), &call, &redis);
    for direction in ["request", "response"] {
        check(&spans, ("edge", &format!("transform {direction}"), "internal"), &call, &[]);
    }
    let rpc = "drawbridge.tickets.v1.TicketService/Search";
    let client = check(&spans, ("edge", rpc, "client"), &call, &[]);
    let server = check(&spans, ("tickets", rpc, "server"), &client, &[]);
    for operation in ["login", "secret"] {
        let name = format!("credentials {operation}");
        check(&spans, ("tickets", &name, "client"), &server, &[]);
    }
    let port = helpdesk.address().port().to_string();
    let search = check(
        &spans,
        ("tickets", "GET search", "client"),
        &server,
        &[
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
        ],
    );
    let [request] = &received[..] else { panic!("{received:?}") };
    let expected = format!("00-{TRACE}-{}-01", search.span_id);
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("traceparent"), Some(expected.as_str()));
    assert_eq!(header("x-request-id"), Some(reply.request_id()));
    assert!(!format!("{spans:?}").contains("token-of-acme"), "{spans:#?}");
}
