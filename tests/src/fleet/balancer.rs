use std::{
    fmt::Write as _,
    fs::{self, File},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use drawbridge_mesh::dependencies::ReservedPort;

use super::Replica;

const POLL_INTERVAL: Duration = Duration::from_millis(50);
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// The name of the proxy of statistics.
const STATS: &str = "stats";

/// A TCP balancer in front of replicas: HAProxy. It checks each replica's `/readyz` and connects to
/// those that are ready, one after another.
#[derive(Debug)]
pub struct Balancer {
    child: Child,
    ports: Vec<(&'static str, ReservedPort)>,
}

/// An address of the balancer, and what is behind it.
#[derive(Debug)]
pub(super) struct Backend<'a> {
    pub(super) name: &'static str,
    pub(super) replicas: &'a [Replica],
    /// Whether it connects to the admin ports of the replicas.
    pub(super) is_admin: bool,
}

/// The ports of a balancer that is not started: services are configured with them before.
#[derive(Debug)]
pub(super) struct BalancerPorts(Vec<(&'static str, ReservedPort)>);

impl BalancerPorts {
    pub(super) fn reserve(names: &[&'static str]) -> Self {
        let port = |&name| (name, ReservedPort::new().expect("a port"));
        Self(names.iter().chain(&[STATS]).map(port).collect())
    }

    /// The address of a backend.
    pub(super) fn address(&self, name: &str) -> String {
        address(&self.0, name)
    }

    /// Starts the balancer, with its files in `folder`.
    pub(super) fn start(self, backends: &[Backend<'_>], folder: &Path) -> Balancer {
        let file = folder.join("haproxy.cfg");
        fs::write(&file, config(&self.0, backends)).expect("a file");
        let log = File::create(folder.join("haproxy.log")).expect("a log file");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let child = command.spawn().expect(
            "HAProxy, which `make test` or `tests/setup.sh test` installs (Debian: haproxy)",
        );
        Balancer { child, ports: self.0 }
    }
}

impl Balancer {
    /// Waits until it connects to this replica.
    pub async fn wait_for(&self, replica: &str) {
        let began = Instant::now();
        let url = format!("http://{}/;csv", address(&self.ports, STATS));
        loop {
            let stats = match reqwest::get(&url).await {
                Ok(response) => response.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            let mut servers = stats.lines().map(|line| line.split(',').collect::<Vec<_>>());
            // The name of the server and its status are the fields 1 and 17.
            let is_up = |fields: &[&str]| fields.get(17).is_some_and(|status| status == &"UP");
            let mut own = servers.by_ref().filter(|fields| fields.get(1) == Some(&replica));
            if own.next().is_some_and(|fields| is_up(&fields)) {
                return;
            }
            assert!(began.elapsed() < STEP_TIMEOUT, "HAProxy does not use {replica}: {stats}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // The error of an exited process is ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(ports: &[(&'static str, ReservedPort)], name: &str) -> String {
    let port = ports.iter().find(|(known, _)| *known == name).map(|(_, port)| port.number);
    format!("{}:{}", Ipv4Addr::LOCALHOST, port.expect("a backend of this name"))
}

/// An operator's configuration: the balancer learns from `/readyz` alone, and leaves open
/// connections alone, so that calls in progress can end. It checks more often than by default.
fn config(ports: &[(&'static str, ReservedPort)], backends: &[Backend<'_>]) -> String {
    let mut text = "\
defaults
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout check 400ms
  retries 3
  option redispatch 1
  default-server check inter 200ms fall 2 rise 1
"
    .to_owned();
    let stats = address(ports, STATS);
    let _ = write!(
        text,
        "frontend {STATS}\n  mode http\n  bind {stats}\n  stats enable\n  stats uri /\n"
    );
    for Backend { name, replicas, is_admin } in backends {
        let own = address(ports, name);
        let _ = write!(
            text,
            "listen {name}\n  bind {own}\n  balance roundrobin\n  option httpchk GET /readyz\n"
        );
        for replica in *replicas {
            let admin = replica.admin_address();
            let target = if *is_admin { admin.clone() } else { replica.address() };
            let port = admin.rsplit(':').next().unwrap_or_default();
            let _ = writeln!(text, "  server {} {target} port {port}", replica.name);
        }
    }
    text
}
