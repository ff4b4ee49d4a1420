//! An audit log of auth that cannot be written, as on a full disk.

use std::process::Command;

use drawbridge_mesh::{HostedService, dependencies::ReservedPort};
use drawbridge_tests::{ServiceProcess, conformance::Conformance};
use reqwest::Url;

use super::*;

/// The size of auth's audit log, in blocks of 1 KiB or, in some shells, 512 bytes.
const BLOCKS: u32 = 64;
/// More calls than auth's log has space for.
const UNTIL_FULL: usize = 300;
/// The decision depends on the arguments, so that auth is asked each time.
const READS_ARGUMENTS: &str = r#"
@id("no-secret-words")
forbid (principal, action == Action::"test_fail_with", resource)
when { context.input.message == "forbidden" };
"#;

struct FullAuth {
    mesh: TestMesh,
    service: Conformance,
    auth: ServiceProcess,
    alice: Client,
    _running: (HostedService, Edge, ReservedPort),
}

impl FullAuth {
    async fn start(folder: &Path, mode: &str) -> Self {
        let mut policies = None;
        let mesh = TestMesh::with(|config| {
            serve_conformance(config);
            config.mtls = false;
            fs::write(config.policies.join("audit.cedar"), READS_ARGUMENTS).expect("a file");
            policies = Some(config.policies.clone());
        })
        .await;
        let port = ReservedPort::new().expect("a port");
        let address = format!("127.0.0.1:{}", port.number);
        let state = &mesh.mesh.state;
        // The signal of a file that would be too large is ignored: the write fails.
        let limited = format!("trap '' XFSZ; ulimit -f {BLOCKS}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_auth-process")]);
        command.args(["--listen", &address, "--issuer", state.issuer_name()]);
        command.args(["--allow-private-addresses", "--audience", mesh.mesh.mcp_url.as_str()]);
        command.args(["--policies", &policies.expect("a folder").display().to_string()]);
        command.args(["--audit-mode", mode, "--audit-log", &folder.display().to_string()]);
        let auth = ServiceProcess::start(command);
        let keys = format!("http://{}/.well-known/jwks.json", auth.admin);
        let url: Url = auth.url("http");
        let (service, hosted, edge) = mesh
            .conformance_of(keys.parse().expect("a URL"), |config| {
                config.auth_urls = vec![url.into()];
            })
            .await;
        let alice = edge.client(&mesh.client("alice").await);
        Self { mesh, service, auth, alice, _running: (hosted, edge, port) }
    }

    /// Calls a tool that counts its calls, and fails.
    async fn call(&self) -> Reply {
        let arguments = json!({ "code": 13, "message": "broken" });
        self.alice.call_tool("test_fail_with", arguments).await
    }

    fn executed(&self) -> usize {
        self.service.failures.load(std::sync::atomic::Ordering::Relaxed) as usize
    }

    async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.auth.admin);
        let metrics = reqwest::get(url).await.expect("metrics").text().await.expect("text");
        let values = metrics.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let is_it = series.split('{').next() == Some(name);
            is_it.then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }
}

/// Why the call was refused before the tool was called. `None`: the tool has failed, as it should.
fn refusal(reply: &Reply) -> Option<&str> {
    let reason = reply.json["error"]["data"]["reason"].as_str();
    // Once auth is not ready, the edge may have no auth that it could ask.
    let refusals = ["audit_unavailable", "auth_unavailable"];
    assert!(reply.status == StatusCode::OK || reason.is_some(), "{reply:?}");
    reason.filter(|reason| refusals.contains(reason))
}

#[tokio::test]
async fn a_call_that_auth_cannot_record_is_refused_with_its_request_id_and_executes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = FullAuth::start(folder.path(), "required").await;
    let (mut executed, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..UNTIL_FULL {
        let reply = full.call().await;
        let error = &reply.json["error"];
        if refusal(&reply) == Some("audit_unavailable") {
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{reply:?}");
            assert_eq!(error["data"]["requestId"], reply.request_id(), "{reply:?}");
            assert!(error["data"]["retryAfterMs"].is_u64(), "{reply:?}");
            assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
            let message = error["message"].as_str().unwrap_or_default();
            assert!(message.contains("nothing was done"), "{reply:?}");
            refused.push(reply.request_id().to_owned());
        } else if refusal(&reply).is_none() {
            executed.push(reply.request_id().to_owned());
        }
        if refused.len() >= 5 {
            break;
        }
    }
    assert!(refused.len() >= 5 && !executed.is_empty(), "{} {}", refused.len(), executed.len());
    assert_eq!(full.executed(), executed.len(), "a refused call reached the tool");
    let alarm = async {
        // A small record may still have space, until the next one has none.
        while full.metric("audit_writable").await > 0.5 {
            full.call().await;
        }
    };
    timeout(Duration::from_secs(60), alarm).await.expect("the metric of the alarm");
    full.mesh.stop().await;
    let items = drawbridge_audit::read::records(&[folder.path().to_owned()]).expect("a log");
    let decided: Vec<_> = items
        .filter_map(|item| match item.ok()? {
            drawbridge_audit::read::Item::Record(record) => Some(record.event),
            drawbridge_audit::read::Item::Torn { .. } => None,
        })
        .filter_map(|event| match event {
            Event::Decision(decision) => Some(decision.request_id),
            _ => None,
        })
        .collect();
    assert!(executed.iter().all(|id| decided.contains(id)), "executed without a record");
    assert!(!refused.iter().any(|id| decided.contains(id)), "refused with a record");
}

#[tokio::test]
async fn calls_go_on_while_auth_with_best_effort_cannot_record_them_and_a_metric_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = FullAuth::start(folder.path(), "best").await;
    let mut calls = 0;
    let failing = async {
        while full.metric("audit_writable").await > 0.5 {
            for _ in 0..20 {
                let reply = full.call().await;
                assert_eq!(refusal(&reply), None, "{reply:?}");
                calls += 1;
            }
        }
    };
    timeout(Duration::from_secs(60), failing).await.expect("a full disk");
    for _ in 0..5 {
        assert_eq!(refusal(&full.call().await), None);
    }
    assert_eq!(full.executed(), calls + 5);
    let counted = async {
        while full.metric("audit_records_lost_total").await < 5.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), counted).await.expect("the count of lost records");
    full.mesh.stop().await;
}
