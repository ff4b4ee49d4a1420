//! Policies are reloaded while the mesh runs.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, TestMesh};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The number of clients that call without a pause.
const CLIENTS: usize = 50;
/// The time limit for an edit to take effect on every replica.
const PROPAGATION_MAX: Duration = Duration::from_secs(1);

/// Continuous calls of several clients.
struct Load {
    /// The start and the status of each call; a hidden resource counts as not found.
    calls: Arc<Mutex<Vec<(Instant, StatusCode)>>>,
    clients: JoinSet<()>,
    stopping: CancellationToken,
}

impl Load {
    fn start(clients: impl Iterator<Item = Client>) -> Self {
        let (calls, stopping) = (Arc::default(), CancellationToken::new());
        let mut load = Self { calls, clients: JoinSet::new(), stopping };
        for client in clients {
            let (calls, stopping) = (Arc::clone(&load.calls), load.stopping.clone());
            load.clients.spawn(async move {
                while !stopping.is_cancelled() {
                    let started = Instant::now();
                    let reply =
                        client.call("resources/read", json!({ "uri": "code://LICENSE" })).await;
                    let status =
                        if reply.is_hidden() { StatusCode::NOT_FOUND } else { reply.status };
                    calls.lock().expect("calls").push((started, status));
                }
            });
        }
        load
    }

    /// Waits for more calls, and returns the statuses of those that started after `since`.
    async fn statuses_since(&self, since: Instant) -> Vec<StatusCode> {
        loop {
            let found: Vec<_> = {
                let calls = self.calls.lock().expect("calls");
                calls
                    .iter()
                    .filter(|(started, _)| *started >= since)
                    .map(|(_, status)| *status)
                    .collect()
            };
            if found.len() >= 2 * CLIENTS {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asserts the status of every call that starts later than `PROPAGATION_MAX` after an edit.
    async fn check_after_edit(&self, edited: Instant, status: StatusCode) {
        tokio::time::sleep_until((edited + PROPAGATION_MAX).into()).await;
        let statuses = self.statuses_since(edited + PROPAGATION_MAX).await;
        assert!(
            statuses.iter().all(|is| *is == status),
            "{status} is not in effect everywhere: {statuses:?}"
        );
    }

    async fn stop(mut self) -> Vec<StatusCode> {
        self.stopping.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client without a failed call");
        }
        self.calls.lock().expect("calls").iter().map(|(_, status)| *status).collect()
    }
}

async fn admin(mesh: &TestMesh, path: &str) -> (StatusCode, String) {
    let auth = mesh.mesh.service("auth").expect("auth");
    let url = format!("http://{}{path}", auth.running.admin);
    let response = reqwest::get(url).await.expect("an answer");
    (response.status(), response.text().await.expect("a text"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_takes_effect_everywhere_within_a_second_without_a_failed_call() {
    let mesh = TestMesh::with(|config| config.telemetry.log = "info".to_owned()).await;
    let replica = mesh.edge(&[("code", &mesh.mesh.state.services["code"])], |_| {}).await;
    let alice = mesh.client("alice").await;
    let there = replica.client(&alice);
    let load = Load::start([alice, there].into_iter().cycle().take(CLIENTS));
    let started = Instant::now();
    assert!(load.statuses_since(started).await.iter().all(|status| *status == StatusCode::OK));

    for (from, to, status) in [
        ("engineering", "support", StatusCode::NOT_FOUND),
        ("support", "engineering", StatusCode::OK),
    ] {
        mesh.edit_policy("code.cedar", &format!("Group::{from:?}"), &format!("Group::{to:?}"));
        load.check_after_edit(Instant::now(), status).await;
    }

    // An invalid edit changes nothing and is reported.
    mesh.edit_policy("code.cedar", "Group::\"engineering\"", "Grp::\"engineering\"");
    let edited = Instant::now();
    load.check_after_edit(edited, StatusCode::OK).await;
    assert!(load.statuses_since(edited).await.iter().all(|status| *status == StatusCode::OK));
    let location = "code.cedar:7:16: ";
    let (status, ready) = admin(&mesh, "/readyz").await;
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    assert_eq!((status, &ready["ready"]), (StatusCode::OK, &json!(true)));
    let note = ready["notes"]["policies"].as_str().unwrap_or_default();
    assert!(note.contains(location.trim_end_matches([':', ' '])), "{ready}");
    assert!(
        !note.contains("Grp") && !note.contains("engineering"),
        "policy text belongs to the log only: {ready}"
    );
    let log = mesh.log();
    let errors = log
        .lines()
        .filter(|line| line.contains("changed files cannot be used"))
        .collect::<Vec<_>>();
    assert!(errors.len() == 1 && errors[0].contains(location), "{errors:?}");
    let (_, metrics) = admin(&mesh, "/metrics").await;
    for line in ["auth_policies_current 0", "auth_policy_reloads_failed_total 1"] {
        assert!(metrics.lines().any(|is| is == line), "{line}: {metrics}");
    }

    mesh.edit_policy("code.cedar", "Grp::\"engineering\"", "Group::\"engineering\"");
    tokio::time::sleep(PROPAGATION_MAX).await;
    assert_eq!(admin(&mesh, "/readyz").await.1, r#"{"ready":true}"#);
    assert!(admin(&mesh, "/metrics").await.1.contains("auth_policies_current 1\n"));

    let statuses = load.stop().await;
    let others: Vec<_> = statuses
        .iter()
        .filter(|status| !matches!(**status, StatusCode::OK | StatusCode::NOT_FOUND))
        .collect();
    assert!(others.is_empty(), "of {} calls: {others:?}", statuses.len());
    replica.hosted.stop().await;
    mesh.stop().await;
}

#[tokio::test]
async fn the_demo_users_have_the_permissions_of_the_shipped_policies() {
    let mesh = TestMesh::start().await;
    let read = async |user: &str, path: &str| {
        let client = mesh.client(user).await;
        client.call("resources/read", json!({ "uri": format!("code://{path}") })).await
    };
    assert_eq!(read("alice", "Cargo.toml").await.status, StatusCode::OK);
    // Carol's role lets her read licences.
    assert_eq!(read("carol", "LICENSE").await.status, StatusCode::OK);
    assert_eq!(read("carol", "Cargo.toml").await.status, StatusCode::FORBIDDEN);
    // Dave is an engineer of another tenant.
    let refused = read("dave", "Cargo.toml").await;
    assert!(refused.is_hidden(), "{refused:?}");
    assert!(mesh.log().contains("code-is-acmes"), "the denying policy is not in the log");
    assert!(mesh.client("dave").await.tools().await.is_empty());
}

#[tokio::test]
async fn a_destructive_tool_needs_a_second_factor() {
    let mesh = TestMesh::with(|config| {
        drawbridge_tests::serve_conformance(config);
        let guardrails = drawbridge_tests::repository().join("policies/guardrails.cedar");
        std::fs::copy(guardrails, config.policies.join("guardrails.cedar")).expect("a file");
    })
    .await;
    let (_service, hosted, edge) = mesh.conformance(|_| {}).await;
    let call = async |user: &str| {
        let client = edge.client(&mesh.client(user).await);
        client.call_tool("test_simple_text", json!({})).await
    };
    assert_eq!(call("alice").await.status, StatusCode::OK);
    let refused = call("bob").await;
    assert!(refused.is_hidden(), "{refused:?}");
    assert!(
        mesh.log().contains("destructive-tools-need-mfa"),
        "the denying policy is not in the log"
    );
    edge.hosted.stop().await;
    hosted.stop().await;
    mesh.stop().await;
}
