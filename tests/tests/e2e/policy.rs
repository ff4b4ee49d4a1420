//! Policies are edited while the mesh works.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, TestMesh};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Clients that call without a pause.
const CLIENTS: usize = 50;
/// What an edit may take until it holds everywhere.
const SOON: Duration = Duration::from_secs(1);

/// Calls that go on and on.
struct Load {
    /// When each began, and how it ended: not found is what is hidden.
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
                    let began = Instant::now();
                    let reply =
                        client.call("resources/read", json!({ "uri": "code://LICENSE" })).await;
                    let status =
                        if reply.is_hidden() { StatusCode::NOT_FOUND } else { reply.status };
                    calls.lock().expect("calls").push((began, status));
                }
            });
        }
        load
    }

    /// Statuses of the calls that began since, after some more of them.
    async fn since(&self, begin: Instant) -> Vec<StatusCode> {
        loop {
            let found: Vec<_> = {
                let calls = self.calls.lock().expect("calls");
                calls
                    .iter()
                    .filter(|(began, _)| *began >= begin)
                    .map(|(_, status)| *status)
                    .collect()
            };
            if found.len() >= 2 * CLIENTS {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asserts that every call is answered so that begins later than soon after an edit.
    async fn becomes(&self, edited: Instant, status: StatusCode) {
        tokio::time::sleep_until((edited + SOON).into()).await;
        let statuses = self.since(edited + SOON).await;
        assert!(
            statuses.iter().all(|is| *is == status),
            "{status} holds not everywhere: {statuses:?}"
        );
    }

    async fn stop(mut self) -> Vec<StatusCode> {
        self.stopping.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client that could always call");
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
async fn an_edit_holds_everywhere_within_a_second_and_no_call_fails_because_of_it() {
    let mesh = TestMesh::with(|config| config.telemetry.log = "info".to_owned()).await;
    let replica = mesh.edge(&[("code", &mesh.mesh.state.services["code"])], |_| {}).await;
    let alice = mesh.client("alice").await;
    let there = replica.client(&alice);
    let load = Load::start([alice, there].into_iter().cycle().take(CLIENTS));
    let begin = Instant::now();
    assert!(load.since(begin).await.iter().all(|status| *status == StatusCode::OK));

    for (from, to, status) in [
        ("engineering", "support", StatusCode::NOT_FOUND),
        ("support", "engineering", StatusCode::OK),
    ] {
        mesh.edit_policy("code.cedar", &format!("Group::{from:?}"), &format!("Group::{to:?}"));
        load.becomes(Instant::now(), status).await;
    }

    // A broken edit changes nothing, and is told.
    mesh.edit_policy("code.cedar", "Group::\"engineering\"", "Grp::\"engineering\"");
    let edited = Instant::now();
    load.becomes(edited, StatusCode::OK).await;
    assert!(load.since(edited).await.iter().all(|status| *status == StatusCode::OK));
    let place = "code.cedar:7:16: ";
    let (status, ready) = admin(&mesh, "/readyz").await;
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    assert_eq!((status, &ready["ready"]), (StatusCode::OK, &json!(true)));
    let note = ready["notes"]["policies"].as_str().unwrap_or_default();
    assert!(note.contains(place.trim_end_matches([':', ' '])), "{ready}");
    assert!(
        !note.contains("Grp") && !note.contains("engineering"),
        "policy text is for the log: {ready}"
    );
    let log = mesh.log();
    let told = log
        .lines()
        .filter(|line| line.contains("the policy files cannot be used"))
        .collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].contains(place), "{told:?}");
    let (_, metrics) = admin(&mesh, "/metrics").await;
    for line in ["auth_policies_current 0", "auth_policy_reloads_failed_total 1"] {
        assert!(metrics.lines().any(|is| is == line), "{line}: {metrics}");
    }

    mesh.edit_policy("code.cedar", "Grp::\"engineering\"", "Group::\"engineering\"");
    tokio::time::sleep(SOON).await;
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
async fn the_demo_users_reach_what_the_shipped_policies_say() {
    let mesh = TestMesh::start().await;
    let read = async |user: &str, path: &str| {
        let client = mesh.client(user).await;
        client.call("resources/read", json!({ "uri": format!("code://{path}") })).await
    };
    assert_eq!(read("alice", "Cargo.toml").await.status, StatusCode::OK);
    // Carol's role lets her read licences.
    assert_eq!(read("carol", "LICENSE").await.status, StatusCode::OK);
    assert_eq!(read("carol", "Cargo.toml").await.status, StatusCode::FORBIDDEN);
    // Dave is an engineer, of another tenant.
    let refused = read("dave", "Cargo.toml").await;
    assert!(refused.is_hidden(), "{refused:?}");
    assert!(mesh.log().contains("code-is-acmes"), "a denial whose policy nobody can find");
    assert!(mesh.client("dave").await.tools().await.is_empty());
}

#[tokio::test]
async fn a_destructive_tool_asks_for_a_second_factor() {
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
        "a denial whose policy nobody can find"
    );
    edge.hosted.stop().await;
    hosted.stop().await;
    mesh.stop().await;
}
