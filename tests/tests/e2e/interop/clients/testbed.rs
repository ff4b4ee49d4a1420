//! The servers for the clients, and the execution of the clients' programs.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use drawbridge_mesh::HostedService;
use drawbridge_tests::{
    Edge, Proxy, ProxyMode, TestMesh, conformance::Conformance, go_client, java_client,
    node_modules_of, python_with, repository, serve_conformance,
};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};
use url::Url;

use super::{Client, Scenario, control::Control};

/// The time limit for one client's scenarios.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(180);
/// The idle timeout of the closing proxy: longer than the edge's keep-alive interval.
const IDLE: Duration = Duration::from_secs(2);
const QUIET_MS: u64 = 300;
/// The duration of one step of SlowWork.
const STEP_MS: u32 = 20;

/// The work that a client requests from SlowWork.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) steps: u32,
    pub(super) silent_ms: u32,
}

impl Work {
    /// Its silence is longer than the edge's keep-alive interval.
    pub(super) const SLOW: Self = Self { steps: 15, silent_ms: 500 };
    pub(super) const QUICK: Self = Self { steps: 5, silent_ms: 0 };

    /// The work of a call without progress through a proxy. For the proxy that closes idle
    /// connections, its silence is longer than the idle timeout.
    pub(super) fn silent(proxy: &str) -> Self {
        if proxy == "idle" { Self { steps: 0, silent_ms: 2_500 } } else { Self::QUICK }
    }

    pub(super) fn arguments(self) -> Value {
        json!({ "milliseconds": self.steps * STEP_MS, "silent_milliseconds": self.silent_ms })
    }

    /// The progress and the result, in order.
    pub(super) fn events(self) -> Vec<String> {
        let steps = (0..self.steps).map(|step| format!("step {step}"));
        steps.chain(["worked".to_owned()]).collect()
    }

    fn plan(self) -> Value {
        json!({ "arguments": self.arguments(), "steps": self.steps })
    }
}

/// A mesh, an edge in front of the conformance service, and proxies in front of that edge.
pub(super) struct Testbed {
    pub(super) mesh: TestMesh,
    pub(super) token: String,
    /// The URL of the edge through a forwarding proxy, which `control` can interrupt.
    pub(super) service: Url,
    pub(super) control: Control,
    pub(super) proxies: Vec<(&'static str, Url)>,
    forwarding: Proxy,
    _servers: (Conformance, HostedService, Edge),
}

impl Testbed {
    pub(super) async fn start() -> Self {
        let mesh = TestMesh::with(serve_conformance).await;
        let alice = mesh.client("alice").await;
        let forwarding = Proxy::bind(ProxyMode::Forwards).await;
        let proxies = [
            ("buffering", Proxy::bind(ProxyMode::Buffers).await),
            ("idle", Proxy::bind(ProxyMode::ClosesIdle(IDLE)).await),
            ("stripping", Proxy::bind(ProxyMode::StripsHeaders).await),
        ];
        let hosts =
            proxies.iter().map(|(_, proxy)| proxy.authority()).chain([forwarding.authority()]);
        let servers = mesh
            .conformance(|config| {
                config.allowed_hosts.extend(hosts);
                config.streams.stream_quiet_ms = QUIET_MS;
                config.sessions_per_principal_max = 1_000;
            })
            .await;
        let (service, _, edge) = &servers;
        let control = Control::start(&forwarding, &edge.client(&alice), service).await;
        Self {
            token: alice.token().to_owned(),
            service: forwarding.forward(&edge.url),
            control,
            proxies: proxies
                .iter()
                .map(|(name, proxy)| (*name, proxy.forward(&edge.url)))
                .collect(),
            forwarding,
            mesh,
            _servers: servers,
        }
    }

    /// Runs a client's program and returns its report.
    pub(super) async fn run(
        &self,
        client: &Client,
        revision: &str,
        scenarios: &[Scenario],
    ) -> Value {
        let plan = self.plan(client, revision, scenarios);
        let mut program = program(client.name);
        program.arg(plan.to_string()).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(CLIENT_TIMEOUT, program.output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("{} in {revision} does not end", client.release));
        let output = output.expect("the client");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} in {revision}: {stderr}", client.release);
        assert!(self.forwarding.has_cut(), "{} in {revision}: no stream was cut", client.release);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
    }

    fn plan(&self, client: &Client, revision: &str, scenarios: &[Scenario]) -> Value {
        let proxies: BTreeMap<_, _> = self.proxies.iter().map(|(name, url)| (name, url)).collect();
        let silent: BTreeMap<_, _> =
            proxies.keys().map(|name| (name, Work::silent(name).arguments())).collect();
        json!({
            "client": client.name,
            "protocol": revision,
            "scenarios": scenarios.iter().map(|scenario| scenario.name()).collect::<Vec<_>>(),
            "url": self.mesh.mesh.mcp_url,
            "username": "alice",
            "password": "alice",
            "call": { "name": "code_search", "arguments": search() },
            "read": READ,
            "denied": { "name": DENIED, "arguments": { "query": "printer" } },
            "token": self.token,
            "service": self.service,
            "control": self.control.url,
            "proxies": proxies,
            "slow": Work::SLOW.plan(),
            "quick": Work::QUICK.plan(),
            "silent": silent,
        })
    }
}

pub(super) const READ: &str = "code://rustfmt.toml";
/// A tool that alice may not call.
pub(super) const DENIED: &str = "tickets_search";

pub(super) fn search() -> Value {
    json!({ "query": "A needle for the tests of real clients.", "path": "tests/tests/e2e/interop/clients" })
}

fn program(client: &str) -> Command {
    let scripts = repository().join("tests/clients");
    match client {
        "python" | "python-1.20" | "fastmcp" => {
            let mut command = Command::new(python_with(client));
            command.arg(scripts.join("python/scenarios.py"));
            command
        }
        "go" => Command::new(go_client()),
        "java" | "java-0.11" => {
            let mut command = Command::new("java");
            // Without the optimizing compiler, short programs start faster.
            command.args(["-XX:TieredStopAtLevel=1", "-cp", &java_client(client), "Scenarios"]);
            command
        }
        _ => {
            // The script finds the packages in the folder of the set-up.
            node_modules_of(client);
            let mut command = Command::new("node");
            command.arg(scripts.join("typescript/scenarios.mjs"));
            command
        }
    }
}
