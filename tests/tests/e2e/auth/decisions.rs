//! Decisions: requested once, cached briefly, recorded in the audit log.

use std::time::{Duration, Instant};

use drawbridge_audit::AuditConfig;
use drawbridge_mesh::HostedService;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, exchange_response::Outcome as Exchanged,
};
use drawbridge_runtime::RequestId;
use drawbridge_tests::{
    Client, REQUEST_ID, TestMesh, audit_decisions, connect, serve_conformance, sign_in,
};
use drawbridge_transport::CallContext;
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

/// The calls of the isolation test, and its concurrency.
const CALLS: usize = 10_000;
const CALLERS: usize = 16;

/// The number of the edge's decisions made by auth, and of those served from the cache.
async fn decisions(edge: &HostedService) -> (u64, u64) {
    let metrics =
        reqwest::get(format!("http://{}/metrics", edge.running.admin)).await.expect("metrics");
    let metrics = metrics.text().await.expect("metrics");
    let count = |source: &str| {
        let name = format!("edge_decisions_total{{source=\"{source}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().expect("a count"))
    };
    (count("auth"), count("cache"))
}

async fn who_am_i(client: &Client) -> (StatusCode, String) {
    let reply = client.call_tool("test_who_am_i", json!({ "secret": "hunter2" })).await;
    (
        reply.status,
        reply.json["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn cached_decisions_never_cross_between_callers() {
    let mesh = TestMesh::with(|config| {
        config.telemetry.log = "error".to_owned();
        serve_conformance(config);
    })
    .await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let callers = [("alice", "alice of acme"), ("dave", "dave of umbrella")];
    let mut clients = Vec::new();
    for (user, expected) in callers {
        clients.push((edge.client(&mesh.client(user).await), expected));
    }
    let mut calling = JoinSet::new();
    for caller in 0..CALLERS {
        let clients = clients.clone();
        calling.spawn(async move {
            for call in 0..CALLS / CALLERS {
                let (client, expected) = &clients[(caller + call) % clients.len()];
                let (status, text) = who_am_i(client).await;
                assert_eq!((status, text.as_str()), (StatusCode::OK, *expected));
            }
        });
    }
    while let Some(called) = calling.join_next().await {
        called.expect("each caller's own identity");
    }
    let (_, cached) = decisions(&edge.hosted).await;
    assert!(cached > CALLS as u64 / 2, "too few cached decisions: {cached}");
}

#[tokio::test]
async fn without_auth_calls_are_rejected_and_succeed_once_it_is_back() {
    let mesh = TestMesh::with(serve_conformance).await;
    let auth = mesh.auth(|_| {});
    let running = auth.start().await;
    let auth_url = auth.url.clone();
    let (_, _service, edge) = mesh
        .conformance_of(auth.keys.clone(), |config| config.auth_urls = vec![auth_url.into()])
        .await;
    let alice = edge.client(&mesh.client("alice").await);
    // The edge caches no decision before its epoch stream is connected.
    let deadline = Instant::now() + Duration::from_secs(10);
    while decisions(&edge.hosted).await.1 == 0 {
        assert_eq!(who_am_i(&alice).await.0, StatusCode::OK);
        assert!(Instant::now() < deadline, "no decision is ever cached");
    }

    running.stop().await;
    for _ in 0..20 {
        let called = Instant::now();
        let reply = alice.call_tool("test_who_am_i", json!({})).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{reply:?}");
        assert!(reply.headers.contains_key("retry-after"));
        reply.assert_names_request();
        assert!(
            called.elapsed() < Duration::from_secs(10),
            "a rejection that takes longer than its deadline"
        );
    }

    let restarted = auth.start().await;
    // It signs with a new key. The tool service fetches an unknown key, but limits repeated
    // fetches.
    let deadline = Instant::now() + Duration::from_secs(20);
    while who_am_i(&alice).await != (StatusCode::OK, "alice of acme".to_owned()) {
        assert!(Instant::now() < deadline, "calls do not work again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    edge.hosted.stop().await;
    restarted.stop().await;
}

#[tokio::test]
async fn a_decision_that_depends_on_the_arguments_is_never_cached() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let read = async |path: &str| {
        alice.call("resources/read", json!({ "uri": format!("code://{path}") })).await
    };
    for _ in 0..3 {
        assert_eq!(read("LICENSE").await.status, StatusCode::OK);
        assert_eq!(read("deploy/tls.key").await.status, StatusCode::FORBIDDEN);
    }
    let (decided, cached) = decisions(mesh.mesh.service("edge").expect("edge")).await;
    assert!(decided >= 6 && cached == 0, "{decided} {cached}");
}

#[tokio::test]
async fn every_decision_is_recorded_without_sensitive_arguments() {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = TestMesh::with(|config| {
        serve_conformance(config);
        config.audit = AuditConfig {
            audit_log: Some(folder.path().to_owned()),
            audit_arguments: true,
            ..AuditConfig::default()
        };
    })
    .await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    assert_eq!(who_am_i(&edge.client(&alice)).await.0, StatusCode::OK);
    let hidden = bob.call_tool("code_search", json!({ "query": "x" })).await;
    assert!(hidden.is_hidden(), "{hidden:?}");
    let log = mesh.log();
    let leaks: Vec<_> = log.lines().filter(|line| line.contains("hunter2")).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    mesh.stop().await;

    let records = audit_decisions(folder.path());
    assert!(records.iter().all(|record| !format!("{record:?}").contains("hunter2")), "{records:?}");
    let of = |item: &str| records.iter().find(|record| record.item == item).expect("a record");
    let (allowed, denied) = (of("test_who_am_i"), of("code_search"));
    assert_eq!(
        (allowed.outcome.as_str(), allowed.policy_ids.join(" ")),
        ("allow", "all-test".to_owned())
    );
    assert_eq!(allowed.arguments, Some(json!({ "secret": "[sensitive]" })));
    assert!(allowed.arguments_redacted && allowed.argument_digest.is_some());
    assert_eq!((denied.outcome.as_str(), denied.who.subject.as_str()), ("not_permitted", "bob"));
    assert_eq!(
        (denied.who.tenant.as_str(), denied.who.groups.join(" ")),
        ("acme", "support".to_owned())
    );
    assert_eq!(denied.arguments.as_ref().expect("arguments")["query"], "x");
    assert_eq!(denied.request_id, hidden.request_id());
    for record in [allowed, denied] {
        assert_ne!(record.request_id, REQUEST_ID);
        assert_eq!(record.trace_id.len(), 32, "{record:?}");
        assert!(!record.policy_revision.is_empty() && record.latency_us > 0 && record.epoch > 0);
    }
}

#[tokio::test]
async fn a_missing_scope_is_reported_at_the_edge_and_in_an_exchange() {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = TestMesh::with(|config| {
        serve_conformance(config);
        config.audit.audit_log = Some(folder.path().to_owned());
    })
    .await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    for _ in 0..2 {
        let refused = alice.call_tool("test_scoped", json!({})).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
        assert_eq!(refused.json["error"]["data"]["reason"], "insufficient_scope");
        assert_eq!(refused.json["error"]["data"]["scopes"], json!(["test:admin"]));
        let challenge = refused.headers["www-authenticate"].to_str().expect("text");
        assert!(
            challenge.contains(r#"error="insufficient_scope""#)
                && challenge.contains(r#"scope="test:admin""#)
        );
    }

    let state = &mesh.mesh.state;
    let subject_token = sign_in(&state.issuer, &state.internal_audience, "alice", "alice").await;
    let rpc = "drawbridge.conformance.v1.ConformanceService/Scoped".to_owned();
    let request = pb::ExchangeRequest { subject_token, rpc, ..Default::default() };
    let context = CallContext::new(RequestId::generate(), Duration::from_secs(10));
    let mut auth = AuthServiceClient::new(connect(&state.auth_url).expect("a channel"));
    let answer = auth.exchange(context.outgoing(request)).await.expect("an answer").into_inner();
    let Some(Exchanged::InsufficientScope(missing)) = answer.outcome else { panic!("{answer:?}") };
    assert_eq!(missing.scopes, ["test:admin"]);
    mesh.stop().await;

    let records = audit_decisions(folder.path());
    assert_eq!(records.len(), 3);
    for record in records {
        assert_eq!(
            (record.outcome.as_str(), record.missing_scopes.join(" ")),
            ("allow", "test:admin".to_owned())
        );
    }
}
