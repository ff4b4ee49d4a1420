//! An edge with several replicas of auth: it asks those that are live, and none that is behind.

use std::time::Duration;

use drawbridge_mesh::HostedService;
use drawbridge_proto::auth::v1::token_set::Which;
use drawbridge_tests::{
    Auth, Client, Edge, Reply, TcpProxy, TestMesh,
    UpstreamState::{self, Down, Hangs, Up},
};
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use url::Url;

use super::revocation::revoke_at;
use crate::{gateway::limits::until, mcp::sessions::open};

/// Two replicas of auth, each behind a proxy, and an edge.
struct World {
    mesh: TestMesh,
    auths: [Auth; 2],
    running: [HostedService; 2],
    proxies: [TcpProxy; 2],
    edge: Edge,
}

impl World {
    async fn start() -> Self {
        let mesh = TestMesh::start().await;
        let auths = [mesh.auth(|_| {}), mesh.auth(|_| {})];
        let running = [auths[0].start().await, auths[1].start().await];
        let proxies =
            [TcpProxy::start(&[&auths[0].url]).await, TcpProxy::start(&[&auths[1].url]).await];
        let edge = edge(&mesh, proxies.iter().map(TcpProxy::url)).await;
        let world = Self { mesh, auths, running, proxies, edge };
        world.wait_for_live("2").await;
        world
    }

    async fn client(&self, user: &str) -> Client {
        self.edge.client(&self.mesh.client(user).await)
    }

    fn set(&self, states: [UpstreamState; 2]) {
        for (proxy, state) in self.proxies.iter().zip(states) {
            proxy.set(0, state);
        }
    }

    async fn wait_for_live(&self, count: &str) {
        until(&format!("{count} live replicas"), async || {
            let live = metric(&self.edge.hosted, "edge_auth_replicas{state=\"live\"}").await;
            live.as_deref() == Some(count)
        })
        .await;
    }

    /// How many lists each replica has filtered.
    async fn lists(&self) -> [u64; 2] {
        let mut lists = [0; 2];
        for (running, lists) in self.running.iter().zip(&mut lists) {
            let metrics = metrics(running).await;
            let counts = metrics.lines().filter(|line| {
                line.starts_with("rpc_server_call_duration_seconds_count")
                    && line.contains("FilterCatalog")
            });
            let counts = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
            *lists = counts.sum();
        }
        lists
    }

    /// Asserts that both replicas get a fair share of the calls.
    async fn assert_shared(&self, client: &Client) {
        let before = self.lists().await;
        for _ in 0..60 {
            assert_eq!(list(client).await.status, StatusCode::OK);
        }
        let after = self.lists().await;
        let shares = [after[0] - before[0], after[1] - before[1]];
        assert!(shares.iter().all(|share| *share >= 15), "{shares:?}");
    }
}

async fn edge(mesh: &TestMesh, auths: impl Iterator<Item = Url>) -> Edge {
    let code = &mesh.mesh.state.services["code"];
    mesh.edge(&[("code", code)], |config| config.auth_urls = auths.map(Into::into).collect()).await
}

async fn metrics(service: &HostedService) -> String {
    let metrics = reqwest::get(format!("http://{}/metrics", service.running.admin)).await;
    metrics.expect("metrics").text().await.expect("metrics")
}

async fn metric(service: &HostedService, name: &str) -> Option<String> {
    let metrics = metrics(service).await;
    metrics.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

/// A request for which the edge asks auth each time.
async fn list(client: &Client) -> Reply {
    client.call("resources/list", json!({})).await
}

/// Many of them at once, all of which must succeed.
async fn assert_lists(client: &Client) {
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let client = client.clone();
        calls.spawn(async move { list(&client).await });
    }
    for reply in calls.join_all().await {
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    }
}

/// A request whose decision the edge caches.
async fn ping(client: &Client) -> Reply {
    client.call("ping", json!({})).await
}

/// Calls until the edge uses cached decisions for this client.
async fn fill_cache(edge: &Edge, client: &Client) {
    let cached = async || metric(&edge.hosted, "edge_decisions_total{source=\"cache\"}").await;
    let before = cached().await;
    until("a cached decision", async || {
        assert_eq!(ping(client).await.status, StatusCode::OK);
        cached().await != before
    })
    .await;
}

async fn readiness(edge: &Edge) -> StatusCode {
    let url = format!("http://{}/readyz", edge.hosted.running.admin);
    reqwest::get(url).await.expect("readiness").status()
}

#[tokio::test]
async fn calls_go_on_while_a_replica_of_auth_is_silent_and_return_to_it() {
    let world = World::start().await;
    let alice = world.client("alice").await;
    world.assert_shared(&alice).await;

    world.set([Hangs, Up]);
    // Some of them wait for the silent replica until the edge leaves it.
    assert_lists(&alice).await;
    let failovers = metric(&world.edge.hosted, "edge_auth_failovers_total").await;
    assert!(failovers.is_some_and(|count| count != "0"), "no call was sent again");
    world.wait_for_live("1").await;
    assert_eq!(readiness(&world.edge).await, StatusCode::OK);
    for _ in 0..20 {
        assert_eq!(list(&alice).await.status, StatusCode::OK);
    }

    world.set([Up, Up]);
    world.wait_for_live("2").await;
    world.assert_shared(&alice).await;
    let log = world.mesh.log();
    for message in ["a replica is live", "a replica is no longer live"] {
        assert!(log.contains(message), "{message}");
    }
}

#[tokio::test]
async fn no_call_fails_when_a_replica_of_auth_is_killed_stopped_and_started_again() {
    let world = World::start().await;
    let alice = world.client("alice").await;
    let calls = async || assert_lists(&alice).await;
    tokio::join!(async { world.set([Down, Up]) }, calls());
    calls().await;
    world.set([Up, Up]);
    world.wait_for_live("2").await;
    calls().await;

    let World { mesh, auths, running: [one, two], proxies: _proxies, edge } = world;
    let mut stopping = std::pin::pin!(two.stop());
    loop {
        tokio::select! {
            () = &mut stopping => break,
            () = calls() => {}
        }
    }
    calls().await;
    let two = auths[1].start().await;
    until("the replica", async || {
        calls().await;
        metric(&edge.hosted, "edge_auth_replicas{state=\"live\"}").await.as_deref() == Some("2")
    })
    .await;
    calls().await;
    drop((mesh, one, two));
}

#[tokio::test]
async fn without_a_live_replica_of_auth_nothing_is_allowed_until_one_is_back() {
    let world = World::start().await;
    let alice = world.client("alice").await;
    for state in [Hangs, Down] {
        fill_cache(&world.edge, &alice).await;
        world.set([state, state]);
        world.wait_for_live("0").await;
        for _ in 0..3 {
            for refused in [ping(&alice).await, list(&alice).await] {
                assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
                assert_eq!(refused.error_code(), Some(-32053), "{refused:?}");
                assert_eq!(refused.json["error"]["data"]["reason"], "auth_unavailable");
                assert!(refused.headers.contains_key("retry-after"));
                refused.assert_names_request();
            }
        }
        until("not ready", async || readiness(&world.edge).await != StatusCode::OK).await;
        world.set([Up, Up]);
        world.wait_for_live("2").await;
        until("ready", async || readiness(&world.edge).await == StatusCode::OK).await;
        assert_eq!(list(&alice).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_revocation_that_one_replica_knows_holds_at_once_and_no_cached_decision_outlives_it() {
    // Without Redis the other replica never learns of it.
    let world = World::start().await;
    let alice = world.client("alice").await;
    fill_cache(&world.edge, &alice).await;
    let session = open(&alice).await;
    let stream = alice.get().header("mcp-session-id", session).send().await.expect("a stream");
    assert_eq!(stream.status(), StatusCode::OK);
    revoke_at(&world.auths[0].url, &world.mesh, Which::Subject("alice".to_owned())).await;
    until("the revocation", async || ping(&alice).await.status == StatusCode::UNAUTHORIZED).await;
    for _ in 0..40 {
        for refused in [ping(&alice).await, list(&alice).await] {
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
        }
    }
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.text()).await;
    assert!(ended.is_ok(), "the stream does not end");
    let bob = world.client("bob").await;
    assert_eq!(list(&bob).await.status, StatusCode::OK, "his tokens are valid");
}

#[tokio::test]
async fn behind_a_tcp_balancer_a_silent_connection_is_closed_and_opened_again() {
    let mesh = TestMesh::start().await;
    let auths = [mesh.auth(|_| {}), mesh.auth(|_| {})];
    let _running = [auths[0].start().await, auths[1].start().await];
    let balancer = TcpProxy::start(&[&auths[0].url, &auths[1].url]).await;
    let edge = edge(&mesh, [balancer.url()].into_iter()).await;
    let alice = edge.client(&mesh.client("alice").await);
    until("auth", async || list(&alice).await.status == StatusCode::OK).await;
    for _ in 0..3 {
        let connections = balancer.connections();
        let used = (connections - 1) % 2;
        balancer.set(used, Hangs);
        balancer.set(1 - used, Up);
        until("the other replica", async || {
            let reply = list(&alice).await;
            let expected = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
            assert!(expected.contains(&reply.status), "{reply:?}");
            reply.status == StatusCode::OK
        })
        .await;
        assert!(balancer.connections() > connections, "the silent connection is still in use");
    }
}
