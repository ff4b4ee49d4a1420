use std::{
    ffi::OsString,
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use drawbridge_mesh::dependencies::ReservedPort;
use http::StatusCode;

/// How often a state is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The time limit of a start and of a stop, on a busy machine too.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// A replica of a service: a process, with the same ports after each restart.
#[derive(Debug)]
pub struct Replica {
    /// Its name, such as `edge-1`.
    pub name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    ports: [ReservedPort; 2],
    log: PathBuf,
    child: Option<Child>,
}

impl Replica {
    /// A replica of this program that is not started. It logs to a file in `folder`.
    pub(super) fn new(name: String, program: PathBuf, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let ports = [(); 2].map(|()| ReservedPort::new().expect("a port"));
        let mut replica =
            Self { name, program, arguments: vec![], variables: vec![], ports, log, child: None };
        for (option, address) in
            [("listen", replica.address()), ("admin-listen", replica.admin_address())]
        {
            replica.option(option, address);
        }
        replica
    }

    /// Adds an option of its command line.
    pub(super) fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.arguments.extend([format!("--{name}").into(), value.into()]);
    }

    /// Adds a flag of its command line.
    pub(super) fn flag(&mut self, name: &str) {
        self.arguments.push(format!("--{name}").into());
    }

    /// Sets a variable of its environment, for what is secret.
    pub(super) fn variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Runs another program from its next start on, such as the same service of another version.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// The service of which it is a replica.
    pub fn service(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }

    /// Where it serves.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.ports[0].number)
    }

    /// Where it serves health, readiness and metrics.
    pub fn admin_address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.ports[1].number)
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts its process.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.child = Some(self.spawn(&[]));
    }

    /// Runs a subcommand of its program with the same options, and asserts that it succeeds.
    pub(super) async fn run(&mut self, subcommand: &str) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.child = Some(self.spawn(&[subcommand]));
        let status = self.wait().await;
        assert!(status.success(), "{} {subcommand}: {status}\n{}", self.name, self.log_tail());
    }

    fn spawn(&self, subcommand: &[&str]) -> Child {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(subcommand)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env("DRAWBRIDGE_LOG_FORMAT", "json").env("DRAWBRIDGE_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The status and the text of its `/readyz`; `None` while it does not answer.
    pub async fn readiness(&self) -> Option<(StatusCode, String)> {
        let url = format!("http://{}/readyz", self.admin_address());
        let response = reqwest::Client::new().get(url).timeout(STEP_TIMEOUT).send().await.ok()?;
        let status = response.status();
        Some((status, response.text().await.ok()?))
    }

    /// Waits until it is ready. Returns for how long it waited.
    pub async fn wait_ready(&mut self) -> Duration {
        let began = Instant::now();
        loop {
            let readiness = self.readiness().await;
            if readiness.as_ref().is_some_and(|(status, _)| status.is_success()) {
                return began.elapsed();
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let is_late = began.elapsed() > STEP_TIMEOUT;
            if is_late || ended.is_some() || self.child.is_none() {
                panic!("{} is not ready: {ended:?} {readiness:?}\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Asks it to stop with SIGTERM, waits for its end, and asserts that it was orderly. Returns
    /// how long it took.
    pub async fn stop(&mut self) -> Duration {
        let began = Instant::now();
        self.signal("-TERM");
        let status = self.wait().await;
        assert!(status.success(), "{}: {status}\n{}", self.name, self.log_tail());
        began.elapsed()
    }

    /// Kills it, like a failing machine.
    pub async fn kill(&mut self) {
        self.signal("-KILL");
        self.wait().await;
    }

    /// Suspends or resumes its process. Suspended, it accepts connections but does not respond.
    pub fn freeze(&self, is_frozen: bool) {
        self.signal(if is_frozen { "-STOP" } else { "-CONT" });
    }

    /// Its log so far, since its first start.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("a running process").id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {}", self.name);
    }

    async fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        let child = self.child.as_mut().expect("a running process");
        loop {
            if let Some(status) = child.try_wait().expect("a status") {
                self.child = None;
                return status;
            }
            assert!(began.elapsed() < STEP_TIMEOUT, "{} does not end", self.name);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The error of an exited process is ignored.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
