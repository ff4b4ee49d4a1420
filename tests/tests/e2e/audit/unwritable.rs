//! An audit log that cannot be written, as on a full disk.

use std::{path::Path, process::Command, time::Duration};

use drawbridge_audit::{
    Event,
    read::{self, Item},
};
use drawbridge_mesh::{HostedService, dependencies::ReservedPort};
use drawbridge_tests::{Client, ServiceProcess, TestMesh, serve_conformance};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

/// An edge whose files may have this many blocks of 1 KiB or, in some shells, 512 bytes: its audit
/// log is full after some calls.
const BLOCKS: u32 = 64;
/// More calls than its log has space for.
const CALLS: usize = 400;
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

struct FullDisk {
    mesh: TestMesh,
    _service: HostedService,
    edge: ServiceProcess,
    alice: Client,
    _port: ReservedPort,
}

impl FullDisk {
    async fn start(folder: &Path, mode: &str) -> Self {
        let mesh = TestMesh::with(|config| {
            serve_conformance(config);
            config.mtls = false;
        })
        .await;
        let (_, service, _) = mesh.conformance(|_| {}).await;
        let port = ReservedPort::new().expect("a port");
        let address = format!("127.0.0.1:{}", port.number);
        let state = &mesh.mesh.state;
        // The signal of a file that would be too large is ignored: the write fails.
        let limited = format!("trap '' XFSZ; ulimit -f {BLOCKS}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_edge-process")]);
        command.args(["--listen", &address, "--allowed-host", &address]);
        command.args(["--public-url", mesh.mesh.mcp_url.as_str()]);
        command.args(["--authorization-server", state.issuer.as_str()]);
        command.args(["--auth-url", state.auth_url.as_str()]);
        command.args(["--service", &format!("test={}", mesh.grpc_url(&service.running.address))]);
        command.args(["--audit-mode", mode]);
        command.args(["--audit-log", &folder.display().to_string()]);
        let edge = ServiceProcess::start(command);
        let url = format!("http://{address}/mcp").parse().expect("a URL");
        let alice = mesh.client("alice").await.at(&url);
        let disk = Self { mesh, _service: service, edge, alice, _port: port };
        let ready = async { while disk.readiness().await["ready"] != true {} };
        timeout(STEP_TIMEOUT, ready).await.expect("a ready edge");
        disk
    }

    async fn readiness(&self) -> Value {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let url = format!("http://{}/readyz?verbose", self.edge.admin);
        reqwest::get(&url).await.expect("an answer").json().await.expect("JSON")
    }

    /// Waits until the condition `audit` of the edge is not met. Returns whether the edge is ready.
    async fn until_unwritable(&self) -> bool {
        let noted = async {
            loop {
                let body = self.readiness().await;
                let conditions = body["conditions"].as_array().cloned().unwrap_or_default();
                if conditions.iter().any(|it| it["name"] == "audit" && it["is_up"] == false) {
                    return body["ready"] == true;
                }
            }
        };
        timeout(STEP_TIMEOUT, noted).await.expect("the condition of the audit log")
    }
}

/// The ids of the calls that are recorded.
fn recorded(folder: &Path) -> Vec<String> {
    let items = read::records(&[folder.to_owned()]).expect("a log").filter_map(Result::ok);
    let ids = items.filter_map(|item| match item {
        Item::Record(record) => match record.event {
            Event::Call(call) => Some(call.request_id),
            _ => None,
        },
        Item::Torn { .. } => None,
    });
    ids.collect()
}

#[tokio::test]
async fn a_full_disk_refuses_calls_before_the_tool_is_called_where_records_are_required() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FullDisk::start(folder.path(), "required").await;
    let (mut refused, mut answered) = (0, Vec::new());
    for _ in 0..CALLS {
        let reply = disk.alice.call_tool("test_simple_text", json!({})).await;
        let error = &reply.json["error"];
        if error.is_null() {
            assert!(reply.json["result"]["content"].is_array(), "{reply:?}");
            answered.push(reply.request_id().to_owned());
            continue;
        }
        assert_eq!(error["data"]["reason"], "audit_unavailable", "{reply:?}");
        // Otherwise the call was in progress when the disk became full: its result is withheld.
        if reply.status == StatusCode::SERVICE_UNAVAILABLE {
            refused += 1;
            assert!(error["data"]["retryAfterMs"].is_u64(), "{reply:?}");
            assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
        }
    }
    assert!(refused > 0 && !answered.is_empty(), "{refused} of {CALLS} were refused");
    assert!(!disk.until_unwritable().await, "the edge is not ready");
    let recorded = recorded(folder.path());
    let missing = answered.iter().filter(|id| !recorded.contains(id)).count();
    assert_eq!(missing, 0, "calls were answered without a record");
    disk.mesh.stop().await;
}

#[tokio::test]
async fn a_full_disk_degrades_an_edge_whose_records_are_not_required() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FullDisk::start(folder.path(), "best").await;
    for _ in 0..CALLS {
        let reply = disk.alice.call_tool("test_simple_text", json!({})).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    }
    let url = format!("http://{}/metrics", disk.edge.admin);
    let failing = async {
        loop {
            let metrics = reqwest::get(&url).await.expect("metrics").text().await.expect("text");
            if metrics.lines().any(|line| line == "audit_writable 0") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(STEP_TIMEOUT, failing).await.expect("the metric of a log that cannot be written");
    assert!(disk.until_unwritable().await, "the edge is degraded, and ready");
    disk.mesh.stop().await;
}
