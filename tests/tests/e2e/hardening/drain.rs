//! A service that is asked to stop loses no call: it becomes not ready, still serves for a while,
//! and ends once the calls in flight have.

use std::{process::Command, time::Duration};

use drawbridge_mesh::{HostedService, dependencies::ReservedPort};
use drawbridge_runtime::DrainConfig;
use drawbridge_tests::{Client, Reply, ServiceProcess, TestMesh, serve_conformance};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use super::sessions::{Stream, begin, initialize, listen, request};

const SLOW: &str = "test_slow_work";
/// A drain that takes as long as what it waits for.
const PATIENT: DrainConfig = DrainConfig { drain_delay_ms: 0, drain_timeout_ms: 600_000 };
/// The time limit of a step, on a busy machine too.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// An edge as a process of its own, in front of the conformance service.
struct World {
    mesh: TestMesh,
    service: HostedService,
    edge: ServiceProcess,
    alice: Client,
    _port: ReservedPort,
}

impl World {
    async fn start(delay: Duration, options: &[&str]) -> Self {
        let mesh = TestMesh::with(|config| {
            serve_conformance(config);
            config.mtls = false;
        })
        .await;
        let (_, service, _) = mesh.conformance(|_| {}).await;
        let port = ReservedPort::new().expect("a port");
        let address = format!("127.0.0.1:{}", port.number);
        let state = &mesh.mesh.state;
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-process"));
        command.args(["--listen", &address, "--allowed-host", &address]);
        command.args(["--public-url", mesh.mesh.mcp_url.as_str()]);
        command.args(["--authorization-server", state.issuer.as_str()]);
        command.args(["--auth-url", state.auth_url.as_str()]);
        command.args(["--service", &format!("test={}", mesh.grpc_url(&service.running.address))]);
        command.args(options);
        let edge = ServiceProcess::start_with_delay(command, delay);
        let url = format!("http://{address}/mcp").parse().expect("a URL");
        let alice = mesh.client("alice").await.at(&url);
        let world = Self { mesh, service, edge, alice, _port: port };
        world.until_readiness(StatusCode::OK).await;
        world
    }

    /// Waits until `/readyz` has this status, and returns its body.
    async fn until_readiness(&self, status: StatusCode) -> Value {
        let url = format!("http://{}/readyz?verbose", self.edge.admin);
        let waiting = async {
            loop {
                let response = reqwest::get(&url).await.expect("an answer");
                if response.status() == status {
                    return response.json().await.expect("JSON");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(STEP_TIMEOUT, waiting).await.expect("the readiness")
    }

    /// Waits until the edge has this many calls in flight.
    async fn until_calls(&self, count: usize) {
        let url = format!("http://{}/metrics", self.edge.admin);
        let wanted = format!("edge_calls_running{{service=\"test\"}} {count}");
        let waiting = async {
            while !reqwest::get(&url)
                .await
                .expect("metrics")
                .text()
                .await
                .expect("metrics")
                .contains(&wanted)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(STEP_TIMEOUT, waiting).await.expect("the calls");
    }

    fn call(&self, milliseconds: u32) -> JoinHandle<Reply> {
        let alice = self.alice.clone();
        tokio::spawn(
            async move { alice.call_tool(SLOW, json!({ "milliseconds": milliseconds })).await },
        )
    }
}

/// 8 of 8 calls in flight were answered with HTTP 500, and the process was gone after 0.2 seconds.
#[tokio::test]
async fn calls_in_flight_end_with_their_results_when_an_edge_is_asked_to_stop() {
    let world = World::start(Duration::from_secs(3), &[]).await;
    let session = initialize(&world.alice).await.1.expect("a session");
    let calls: Vec<_> = (0..6).map(|_| world.call(8_000)).collect();
    let slow = json!({ "milliseconds": 8_000 });
    let mut streams = vec![];
    for _ in 0..2 {
        let call = json!({
            "jsonrpc": "2.0", "id": streams.len(), "method": "tools/call",
            "params": { "name": SLOW, "arguments": slow, "_meta": { "progressToken": 1 } },
        });
        let call = world.alice.post().header("mcp-session-id", &session).body(call.to_string());
        streams.push(Stream::open(call.build()).await);
    }
    world.until_calls(8).await;

    world.edge.terminate();
    let body = world.until_readiness(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(body["reason"], "stopping", "{body}");
    let during_delay = world.alice.call_tool("test_simple_text", json!({})).await;
    assert!(during_delay.json["result"]["content"].is_array(), "{during_delay:?}");
    assert_eq!(during_delay.headers["connection"], "close");

    let refused = async {
        while TcpStream::connect(&world.edge.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(STEP_TIMEOUT, refused).await.expect("a closed listener");
    assert!(!calls.iter().any(JoinHandle::is_finished), "the calls go on");
    for call in calls {
        let reply = call.await.expect("a reply");
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        assert!(reply.json["result"]["content"].is_array(), "{reply:?}");
    }
    for mut stream in streams {
        let text = stream.end().await;
        assert!(text.contains("\"result\""), "{text}");
    }
    assert!(world.edge.wait().success());
}

#[tokio::test]
async fn streams_end_with_a_retry_time_and_do_not_delay_the_stop_of_an_edge() {
    let world = World::start(Duration::ZERO, &["--drain-timeout-ms", "600000"]).await;
    let session = initialize(&world.alice).await.1.expect("a session");
    let mut standalone = Stream::open(request(&world.alice, Method::GET, &session)).await;
    let mut subscription = Stream::open(listen(&world.alice)).await;
    subscription.until("acknowledged").await;
    world.edge.terminate();
    let (end, rest) = tokio::join!(standalone.end(), subscription.end());
    let retry = end.lines().find_map(|line| line.strip_prefix("retry: "));
    let retry: u64 = retry.unwrap_or_else(|| panic!("{end:?}")).parse().expect("milliseconds");
    assert!((250..=2_000).contains(&retry), "{retry}");
    assert!(end.ends_with("\n\n"), "it is an event of its own: {end:?}");
    assert!(rest.contains(r#""resultType":"complete""#), "{rest}");
    assert!(world.edge.wait().success());
}

#[tokio::test]
async fn calls_that_do_not_end_in_time_fail_with_a_retryable_error() {
    let world = World::start(Duration::ZERO, &["--drain-timeout-ms", "300"]).await;
    let session = initialize(&world.alice).await.1.expect("a session");
    let call = world.call(300_000);
    let mut stream = begin(&world.alice, &session, SLOW, json!({ "milliseconds": 300_000 })).await;
    world.until_calls(2).await;
    world.edge.terminate();
    let reply = call.await.expect("a reply");
    let rest = stream.end().await;
    assert_eq!(reply.error_code(), Some(-32053), "{reply:?}");
    assert_eq!(reply.json["error"]["data"]["retryable"], true, "{reply:?}");
    assert!(rest.contains("-32053"), "{rest}");
    assert!(world.edge.wait().success());
}

#[tokio::test]
async fn a_second_signal_ends_an_edge_at_once() {
    let world = World::start(Duration::from_secs(600), &[]).await;
    let call = world.call(300_000);
    world.until_calls(1).await;
    world.edge.terminate();
    world.until_readiness(StatusCode::SERVICE_UNAVAILABLE).await;
    world.edge.terminate();
    assert_eq!(world.edge.wait().code(), Some(1));
    call.abort();
}

#[tokio::test]
async fn a_tool_service_ends_calls_with_their_results_and_watches_at_once() {
    let world = World::start(Duration::ZERO, &[]).await;
    let mut subscription = Stream::open(listen(&world.alice)).await;
    subscription.until("resources/updated").await;
    let call = world.call(2_000);
    world.until_calls(1).await;
    let draining = timeout(STEP_TIMEOUT, world.service.running.drain(&PATIENT));
    draining.await.expect("the watch does not delay it");
    let reply = call.await.expect("a reply");
    assert!(reply.json["result"]["content"].is_array(), "{reply:?}");
}

#[tokio::test]
async fn auth_decides_during_its_drain_and_ends_the_watches_of_edges() {
    let mut world = World::start(Duration::ZERO, &[]).await;
    let services = &mut world.mesh.mesh.services;
    let auth = services.iter().position(|service| service.telemetry.service() == "auth");
    // Its runtime lives as long as `hosted`.
    let hosted = services.remove(auth.expect("auth"));
    let auth = hosted.running;
    let delayed = DrainConfig { drain_delay_ms: 3_000, ..PATIENT };
    let readiness = auth.readiness();
    let draining = tokio::spawn(async move { auth.drain(&delayed).await });
    while readiness.reason().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let decided = world.alice.call_tool("test_simple_text", json!({})).await;
    assert!(decided.json["result"]["content"].is_array(), "{decided:?}");
    timeout(STEP_TIMEOUT, draining).await.expect("the watch does not delay it").expect("an end");
    let body = world.until_readiness(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(body["reason"], "auth: no replica can be asked", "{body}");
}
