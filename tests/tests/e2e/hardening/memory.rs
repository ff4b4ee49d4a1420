//! The memory of an edge under floods.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_mesh::HostedService;
use drawbridge_runtime::{Listen, TelemetryConfig};
use drawbridge_tests::{Client, TestMesh};
use drawbridge_transport::MtlsConfig;
use http::StatusCode;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    task::JoinSet,
    time::{sleep, timeout},
};

/// The memory limit of the process, in bytes.
const MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The duration of the floods.
const FLOOD: Duration = Duration::from_secs(60);
const BODY_BYTES: usize = 4 * 1024 * 1024;
/// The variable with the configuration of the process.
const EDGE: &str = "DRAWBRIDGE_TEST_EDGE_CONFIG";

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts an edge of this mesh in its own process with a memory limit.
    async fn start(mesh: &TestMesh) -> Self {
        let (state, mtls) = (&mesh.mesh.state, mesh.mtls("edge"));
        let path = |path: &Option<std::path::PathBuf>| path.clone().expect("a file");
        let config = json!({
            "public_url": mesh.mesh.mcp_url,
            "issuer": state.issuer.to_string(),
            "auth_url": state.auth_url,
            "code_url": state.services["code"],
            "certificate": path(&mtls.mtls_certificate_file),
            "key": path(&mtls.mtls_key_file),
            "bundle": path(&mtls.mtls_trust_bundle_file),
        });
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "--ignored", "--nocapture", "hardening::memory::as_an_edge"])
            .env(EDGE, config.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let address = loop {
            let line = lines.next_line().await.expect("a text").expect("a process that starts");
            if let Some((_, address)) = line.split_once("serves at ") {
                break address.parse().expect("an address");
            }
        };
        // Keep reading: a write to a closed pipe would end the process.
        tokio::spawn(
            async move { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} },
        );
        Self { child, address }
    }

    /// The highest resident memory so far, in bytes.
    fn peak(&self) -> u64 {
        let pid = self.child.id().expect("a running process");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    fn head(&self, token: &str) -> Vec<u8> {
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {BODY_BYTES}\r\n\r\n",
            self.address
        );
        head.into_bytes()
    }
}

/// Sends requests until `end`, each once the previous one is answered.
async fn flood(address: SocketAddr, head: Vec<u8>, body: Arc<Vec<u8>>, end: Instant) {
    while Instant::now() < end {
        let sending = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&head).await?;
            // The edge may close the connection before the end of the body.
            let _ = stream.write_all(&body).await;
            stream.read_to_end(&mut Vec::new()).await
        };
        let _ = timeout(Duration::from_secs(20), sending).await;
    }
}

/// Opens sessions with streams until `end`, and closes none.
async fn open_sessions(client: Client, end: Instant) {
    let mut streams = Vec::new();
    while Instant::now() < end {
        let client_info = json!({ "name": "flood", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client_info });
        let reply = client.call("initialize", params).await;
        let Some(id) = reply.headers.get("mcp-session-id") else {
            assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "{reply:?}");
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        let stream =
            client.get().header("mcp-session-id", id.clone()).send().await.expect("a response");
        streams.push(stream);
    }
}

/// The attacks: one request of 4 MB of nested arrays killed a process of 512 MiB, without
/// authentication; 150 connections that withheld the last byte of a body cost 4.2 MB each, and a
/// session 118 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_with_256_mib_survives_floods_and_answers_ordinary_clients() {
    let mesh = TestMesh::with(|config| config.telemetry.log = "warn".to_owned()).await;
    let mut edge = Process::start(&mesh).await;
    let url = format!("http://{}/mcp", edge.address).parse().expect("a URL");
    let (alice, bob) = (mesh.client("alice").await.at(&url), mesh.client("bob").await.at(&url));
    for client in [&alice, &bob] {
        assert_eq!(client.call("ping", json!({})).await.status, StatusCode::OK);
    }
    let at_rest = edge.peak();

    let end = Instant::now() + FLOOD;
    let unit = "[".repeat(100) + &"]".repeat(100);
    let nested = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":[{}"#,
        vec![unit.as_str(); 20_000].join(",")
    );
    let mut nested = nested.into_bytes();
    nested.resize(BODY_BYTES - 3, b' ');
    nested.extend(b"]}}");
    let nested = Arc::new(nested);
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"code_search","arguments":{{"query":"{}"}}}}}}"#,
        "x".repeat(BODY_BYTES - 200)
    );
    let mut text = text.into_bytes();
    text.resize(BODY_BYTES, b' ');
    let (text, incomplete) = (Arc::new(text), Arc::new(vec![b' '; BODY_BYTES - 1]));
    let mut floods = JoinSet::new();
    for token in ["x", alice.token()] {
        for _ in 0..6 {
            floods.spawn(flood(edge.address, edge.head(token), Arc::clone(&nested), end));
            floods.spawn(flood(edge.address, edge.head(token), Arc::clone(&text), end));
        }
        for _ in 0..75 {
            floods.spawn(flood(edge.address, edge.head(token), Arc::clone(&incomplete), end));
        }
    }
    floods.spawn(open_sessions(alice.clone(), end));

    let mut answered = 0;
    while Instant::now() < end {
        let reply = bob.call("ping", json!({})).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        answered += 1;
        sleep(Duration::from_millis(50)).await;
    }
    floods.shutdown().await;
    assert!(edge.child.try_wait().expect("a state").is_none(), "the process has exited");
    let mib = |bytes: u64| bytes / 1024 / 1024;
    eprintln!(
        "memory: {} MiB at rest, at most {} MiB under floods; an ordinary client was answered {answered} times",
        mib(at_rest),
        mib(edge.peak())
    );
    assert!(answered >= 20, "{answered}");
}

#[ignore = "the process of the test above"]
#[tokio::test]
async fn as_an_edge() {
    setrlimit(
        Resource::Data,
        Rlimit { current: Some(MEMORY_BYTES_MAX), maximum: Some(MEMORY_BYTES_MAX) },
    )
    .expect("a limit");
    let config = env::var(EDGE).expect("the test above sets it");
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    let text = |name: &str| config[name].as_str().expect("a text").to_owned();
    let url = |name: &str| text(name).parse().expect("a URL");
    let (listen, address) =
        Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let config = drawbridge_edge::Config {
        listen,
        admin_listen: "127.0.0.1:0".parse().expect("an address"),
        services: vec![format!("code={}", text("code_url")).parse().expect("a service")],
        allowed_hosts: vec![address.to_string()],
        mtls: MtlsConfig {
            mtls_certificate_file: Some(text("certificate").into()),
            mtls_key_file: Some(text("key").into()),
            mtls_trust_bundle_file: Some(text("bundle").into()),
            ..MtlsConfig::default()
        },
        ..drawbridge_edge::Config::new(url("public_url"), text("issuer"), url("auth_url"))
    };
    let telemetry = TelemetryConfig { log: "warn".to_owned(), ..TelemetryConfig::default() };
    let hosted = HostedService::start("edge", &telemetry, |telemetry| async move {
        drawbridge_edge::start(config, &telemetry).await
    });
    let hosted = hosted.await.expect("an edge");
    hosted.running.readiness().wait_ready().await;
    println!("serves at {address}");
    std::future::pending::<()>().await;
}
