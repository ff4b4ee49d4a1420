//! The catalog follows the services: written in any language, up or down, added and removed.

use std::{
    ffi::OsStr,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use drawbridge_contract::Contract;
use drawbridge_mesh::HostedService;
use drawbridge_runtime::{Listen, RequestId, TelemetryConfig};
use drawbridge_tests::{
    Client, ServiceProcess, TestMesh, conformance::Conformance, connect, permit, python_sdk,
    repository, serve_conformance,
};
use drawbridge_transport::{CallContext, reflection};
use serde_json::{Value, json};
use url::Url;

/// The tool service in Python.
pub(crate) struct PythonService {
    _process: ServiceProcess,
    pub(crate) url: Url,
}

impl PythonService {
    pub(crate) fn start(keys: &Url) -> Self {
        Self::with(keys, "http", &[])
    }

    /// With mTLS and these options of it.
    pub(crate) fn with_mtls(keys: &Url, options: &[(&str, &OsStr)]) -> Self {
        Self::with(keys, "https", options)
    }

    /// Its contract, from a service without valid keys.
    pub(crate) async fn contract() -> Contract {
        let unreachable = "http://127.0.0.1:1/".parse().expect("a URL");
        let service = Self::start(&unreachable);
        let context = CallContext::new(RequestId::generate(), Duration::from_secs(10));
        let contract =
            reflection::fetch_contract(connect(&service.url).expect("a channel"), &context).await;
        contract.expect("a contract")
    }

    fn with(keys: &Url, scheme: &str, options: &[(&str, &OsStr)]) -> Self {
        let mut command = Command::new(python_sdk());
        command.arg(repository().join("tests/services/python/greeter_service.py"));
        command.args(["--auth-jwks-url", keys.as_str()]);
        for (option, value) in options {
            command.arg(option).arg(value);
        }
        let process = ServiceProcess::start(command);
        let url = process.url(scheme);
        Self { _process: process, url }
    }
}

#[tokio::test]
async fn a_tool_service_in_python_serves_its_tools_through_the_edge() {
    // The contract does not depend on the keys, so it can be locked in before the mesh starts.
    let contract = PythonService::contract().await;
    let mesh = TestMesh::with(|config| permit(config, "greeter", &contract)).await;
    let service = PythonService::start(&mesh.transaction_keys());
    let edge = mesh.edge(&[("greeter", &service.url)], |_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);

    let listed = alice.call("tools/list", json!({})).await;
    let tools = &listed.json["result"]["tools"];
    assert_eq!(
        [&tools[0]["name"], &tools[1]["name"]],
        ["greeter_count", "greeter_greet"],
        "{listed:?}"
    );
    assert_eq!(tools[1]["description"], "Greets a person on behalf of the caller.");
    assert_eq!(tools[1]["inputSchema"]["properties"]["name"]["description"], "Whom to greet.");

    let greeted = alice.call_tool("greeter_greet", json!({ "name": "Ada" })).await;
    let expected = json!({ "greeting": "Hello, Ada!", "caller": "alice" });
    assert_eq!(greeted.json["result"]["structuredContent"], expected, "{greeted:?}");
    let unnamed = alice.call_tool("greeter_greet", json!({})).await;
    assert_eq!(
        (&unnamed.json["result"]["isError"], unnamed.message()),
        (&json!(true), "name: must not be empty")
    );
    let counted = alice.call_tool("greeter_count", json!({ "to": 3 })).await;
    assert_eq!(counted.json["result"]["structuredContent"]["counted"], 3, "{counted:?}");
}

/// The outcomes of calls under continuous load.
#[derive(Debug, Default)]
struct Outcomes {
    good: AtomicU32,
    retryable: AtomicU32,
    wrong: AtomicU32,
}

/// Calls a tool without a pause until `stop` is set.
#[expect(clippy::print_stdout, reason = "the output shows the failed replies")]
async fn load(
    client: Client,
    tool: &'static str,
    arguments: Value,
    stop: Arc<AtomicBool>,
    outcomes: Arc<Outcomes>,
) {
    while !stop.load(Ordering::Relaxed) {
        let reply = client.call_tool(tool, arguments.clone()).await;
        let counter = match reply.error_code() {
            None if reply.json["result"]["isError"] != true => &outcomes.good,
            Some(-32053) if reply.json["error"]["data"]["retryable"] == true => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                &outcomes.retryable
            }
            _ => {
                println!("{tool}: {reply:?}");
                &outcomes.wrong
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this process's status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_service_killed_under_load_fails_retryably_recovers_and_affects_no_other() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (listen, address) =
        Listen::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let start = async |listen: Listen| {
        let (keys, telemetry) = (mesh.transaction_keys(), TelemetryConfig::default());
        let hosted = HostedService::start("conformance", &telemetry, |telemetry| async move {
            Conformance::default().start(listen, keys, &telemetry).await
        });
        hosted.await.expect("the service")
    };
    let mut service = start(listen).await;
    let test = format!("http://{address}").parse().expect("a URL");
    let code = mesh.mesh.state.services["code"].clone();
    let edge = mesh
        .edge(&[("test", &test), ("code", &code)], |config| config.contract_poll_ms = 200)
        .await;
    let alice = edge.client(&mesh.client("alice").await);
    let listed = alice.tools().await;

    let stop = Arc::new(AtomicBool::new(false));
    let (dying, other) = (Arc::new(Outcomes::default()), Arc::new(Outcomes::default()));
    let mut loads = tokio::task::JoinSet::new();
    for _ in 0..4 {
        loads.spawn(load(
            alice.clone(),
            "test_simple_text",
            json!({}),
            Arc::clone(&stop),
            Arc::clone(&dying),
        ));
        let glob = json!({ "glob": "Cargo.toml" });
        loads.spawn(load(
            alice.clone(),
            "code_list_files",
            glob,
            Arc::clone(&stop),
            Arc::clone(&other),
        ));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let memory = resident_kib();
    for _ in 0..3 {
        service.stop().await;
        assert_eq!(alice.tools().await, listed, "a tool disappeared with its service");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (good, failed) =
            (dying.good.load(Ordering::Relaxed), dying.retryable.load(Ordering::Relaxed));
        assert!(failed > 0, "{dying:?}");
        let (listen, _) = Listen::bind(address).expect("the same port");
        service = start(listen).await;
        let mut waited = 0;
        while dying.good.load(Ordering::Relaxed) < good + 20 {
            waited += 1;
            assert!(waited < 100, "calls do not work again: {dying:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    loads.join_all().await;
    let grown = resident_kib().saturating_sub(memory);
    println!("dying: {dying:?}; other: {other:?}; memory grew by {grown} KiB");
    assert_eq!(dying.wrong.load(Ordering::Relaxed), 0, "{dying:?}");
    assert_eq!(
        other.wrong.load(Ordering::Relaxed) + other.retryable.load(Ordering::Relaxed),
        0,
        "{other:?}"
    );
    // The harness stores every log record in memory, so the bound is wide.
    assert!(grown < 100 * 1024, "memory grew by {grown} KiB");
}

#[tokio::test]
async fn an_edit_of_the_config_file_adds_and_removes_a_service_and_notifies_clients() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, hosted, _) = mesh.conformance(|_| {}).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    let code = &mesh.mesh.state.services["code"];
    let with_code = format!("[[services]]\nnamespace = \"code\"\nurls = [\"{code}\"]\n");
    let test = mesh.grpc_url(&hosted.running.address);
    let with_both = format!("{with_code}[[services]]\nnamespace = \"test\"\nurls = [\"{test}\"]\n");
    fs::write(&file, &with_code).expect("a file");
    let edge = mesh.edge(&[], |config| config.config = Some(file.clone())).await;
    let alice = edge.client(&mesh.client("alice").await);
    assert_eq!(alice.tools().await.len(), 2);

    // A subscriber is notified (revision 2026-07-28).
    let body = json!({
        "jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen",
        "params": {
            "notifications": { "toolsListChanged": true },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let request = alice.post().body(body.to_string()).build().map(|mut request| {
        let headers = request.headers_mut();
        headers.insert("mcp-protocol-version", http::HeaderValue::from_static("2026-07-28"));
        headers.insert("mcp-method", http::HeaderValue::from_static("subscriptions/listen"));
        request
    });
    let mut stream =
        reqwest::Client::new().execute(request.expect("a request")).await.expect("a stream");
    let mut received = String::new();
    let mut wait_for = async |wanted: &str| {
        while !received.contains(wanted) {
            let next = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await;
            let next = next.unwrap_or_else(|_| panic!("{wanted} does not arrive: {received}"));
            received.push_str(&String::from_utf8_lossy(&next.expect("a chunk").expect("more")));
        }
        received.clear();
    };
    wait_for("notifications/subscriptions/acknowledged").await;

    fs::write(&file, &with_both).expect("a file");
    wait_for("notifications/tools/list_changed").await;
    assert!(alice.tools().await.contains(&"test_simple_text".to_owned()));
    fs::write(&file, "[[services]]\nnamespace = 7\n").expect("a file");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(
        alice.tools().await.contains(&"test_simple_text".to_owned()),
        "an invalid edit changes nothing"
    );
    let metrics = reqwest::get(format!("http://{}/metrics", edge.hosted.running.admin))
        .await
        .expect("an answer");
    assert!(metrics.text().await.expect("a text").contains("edge_config_current 0"));
    fs::write(&file, &with_code).expect("a file");
    wait_for("notifications/tools/list_changed").await;
    assert_eq!(alice.tools().await.len(), 2);
}
