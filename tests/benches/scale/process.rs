//! An edge in its own process, so that its memory can be measured.

use std::{fs, net::SocketAddr, process::Stdio, time::Duration};

use drawbridge_tests::TestMesh;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};
use url::Url;

use crate::processor_time;

const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// More than the benchmark opens.
const UNREACHED_LIMIT: &str = "20000";

pub(crate) struct EdgeProcess {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl EdgeProcess {
    /// Starts an edge of this mesh in front of these tool services, and waits until it is ready. It
    /// logs at its default level, to the null device.
    pub(crate) async fn start(mesh: &TestMesh, services: &[(&str, SocketAddr)]) -> Self {
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0");
            listener.and_then(|listener| listener.local_addr()).expect("a port")
        };
        let (address, admin) = (free(), free());
        let state = &mesh.mesh.state;
        let services =
            services.iter().map(|(namespace, at)| format!("{namespace}={}", mesh.grpc_url(*at)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-process"));
        command
            .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
            .args(["--drain-delay-ms", "0"])
            .args([
                "--public-url",
                mesh.mesh.mcp_url.as_str(),
                "--allowed-host",
                &address.to_string(),
            ])
            .args([
                "--authorization-server",
                state.issuer.as_str(),
                "--auth-url",
                state.auth_url.as_str(),
            ])
            .args(services.flat_map(|service| ["--service".to_owned(), service]))
            .args([
                "--sessions-max",
                UNREACHED_LIMIT,
                "--sessions-per-principal-max",
                UNREACHED_LIMIT,
            ])
            .args([
                "--streams-max",
                UNREACHED_LIMIT,
                "--streams-per-principal-max",
                UNREACHED_LIMIT,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().expect("a process");
        let mut edge = Self { child, address };
        let ready: Url = format!("http://{admin}/readyz").parse().expect("a URL");
        let waiting = async {
            while !reqwest::get(ready.clone())
                .await
                .is_ok_and(|response| response.status().is_success())
            {
                assert_eq!(edge.child.try_wait().expect("a state"), None, "the edge has exited");
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(START_TIMEOUT, waiting).await.expect("a ready edge in time");
        edge
    }

    fn id(&self) -> u32 {
        self.child.id().expect("a running process")
    }

    /// Its resident set, in KiB.
    pub(crate) fn memory(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The anonymous part of its resident set, in KiB.
    pub(crate) fn anonymous(&self) -> f64 {
        self.status("RssAnon:")
    }

    fn status(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a process");
        let line =
            status.lines().find_map(|line| line.strip_prefix(field)).expect("a resident set");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// The processor time that it has used so far.
    pub(crate) fn processor(&self) -> Duration {
        processor_time::by_thread(&self.id().to_string()).into_values().sum()
    }

    pub(crate) async fn stop(mut self) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(id, Signal::TERM).expect("a signal");
        timeout(STOP_TIMEOUT, self.child.wait()).await.expect("a stop in time").expect("an exit");
    }
}
