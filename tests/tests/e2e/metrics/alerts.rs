//! Alerts that fire in a real Prometheus and arrive at a real Alertmanager: `make alerts-test`.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use drawbridge_mesh::dependencies::ReservedPort;
use drawbridge_tests::{
    fleet::{DependencyName, Fleet, Sizes},
    repository,
};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::replicas::program;

/// The time limit for an alert to arrive or to end, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long an alert's condition must hold here, instead of minutes.
const FOR: &str = "2s";

/// Prometheus and Alertmanager over the admin ports of a fleet. They stop when this is dropped.
struct Monitoring {
    processes: Vec<Child>,
    alertmanager: String,
    _folder: TempDir,
    _ports: [ReservedPort; 2],
}

impl Monitoring {
    fn start(fleet: &Fleet) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = [(); 2].map(|()| ReservedPort::new().expect("a port"));
        let [prometheus, alertmanager] =
            [0, 1].map(|index: usize| format!("127.0.0.1:{}", ports[index].number));
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("a file");
            path.to_str().expect("a path").to_owned()
        };
        let rules = repository().join("deploy/helm/drawbridge/alerts.yaml");
        let rules = fs::read_to_string(rules).expect("the alerts");
        let line = |line: &str| match line.trim_start().strip_prefix("for: ") {
            Some(duration) => line.replace(duration, FOR),
            None => line.to_owned(),
        };
        let rules = rules.lines().map(line).collect::<Vec<_>>().join("\n");
        let rules = write("alerts.yml", rules);
        let jobs = fleet.replicas().map(|replica| {
            json!({
                "job_name": replica.name,
                "static_configs": [{ "targets": [replica.admin_address()] }],
            })
        });
        // JSON is YAML too.
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "alerting": {
                "alertmanagers": [{ "static_configs": [{ "targets": [alertmanager] }] }],
            },
            "scrape_configs": jobs.collect::<Vec<_>>(),
        });
        let config = write("prometheus.yml", config.to_string());
        let receivers = repository().join("deploy/prometheus/alertmanager.yml");
        let processes = vec![
            spawn(
                "prometheus",
                folder.path(),
                &[
                    format!("--config.file={config}"),
                    format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()),
                    format!("--web.listen-address={prometheus}"),
                    "--rules.alert.resend-delay=2s".to_owned(),
                ],
            ),
            spawn(
                "prometheus-alertmanager",
                folder.path(),
                &[
                    format!("--config.file={}", receivers.display()),
                    format!("--storage.path={}", folder.path().join("alertmanager").display()),
                    format!("--web.listen-address={alertmanager}"),
                    "--cluster.listen-address=".to_owned(),
                ],
            ),
        ];
        Self { processes, alertmanager, _folder: folder, _ports: ports }
    }

    /// The alerts that Alertmanager has, as `alert` or `alert dependency`. `None`: it has not
    /// started yet.
    async fn firing(&self) -> Option<BTreeSet<String>> {
        let url = format!("http://{}/api/v2/alerts", self.alertmanager);
        let alerts: Vec<Value> = reqwest::get(url).await.ok()?.json().await.ok()?;
        let name = |alert: &Value| {
            let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
            format!("{} {}", label("alertname"), label("dependency")).trim().to_owned()
        };
        Some(alerts.iter().map(name).collect())
    }

    /// Waits until the alerts are as wanted.
    async fn until(&self, what: &str, is_as_wanted: impl Fn(&BTreeSet<String>) -> bool) {
        let began = Instant::now();
        loop {
            let firing = self.firing().await;
            if firing.as_ref().is_some_and(&is_as_wanted) {
                let seconds = began.elapsed().as_secs_f64();
                // The macros' output is captured.
                let _ = writeln!(io::stderr(), "alerts: {what} after {seconds:.1} s");
                return;
            }
            assert!(began.elapsed() < TIMEOUT, "{what}: {firing:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn fires(&self, alert: &str) {
        self.until(&format!("{alert} has arrived"), |firing| firing.contains(alert)).await;
    }

    async fn none_fires(&self) {
        self.until("no alert is left", BTreeSet::is_empty).await;
    }
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn spawn(program: &str, folder: &Path, arguments: &[String]) -> Child {
    let log = fs::File::create(folder.join(format!("{program}.log"))).expect("a file");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; `tests/setup.sh alerts` installs it"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Alertmanager: `make alerts-test`"]
async fn an_alert_arrives_when_redis_dies_a_tool_service_stops_or_auth_is_silent() {
    let sizes = Sizes { auth: 1, edge: 1, tools: 1 };
    let mut fleet = Box::pin(Fleet::start(program, sizes, 1)).await;
    let monitoring = Monitoring::start(&fleet);
    monitoring.none_fires().await;

    fleet.kill_dependency(DependencyName::Redis);
    monitoring.fires("DrawbridgeRedisDegraded redis").await;
    fleet.restart_dependency(DependencyName::Redis).await;
    monitoring.none_fires().await;

    fleet.replica_mut("code-1").kill().await;
    monitoring.fires("DrawbridgeToolServiceMissing service:code").await;
    fleet.replica_mut("code-1").start();
    monitoring.none_fires().await;

    fleet.replica_mut("auth-1").kill().await;
    monitoring.fires("DrawbridgeAuthSilent").await;
    fleet.replica_mut("auth-1").start();
    monitoring.none_fires().await;
}
