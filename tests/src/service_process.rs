use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use url::Url;

/// A service that runs as a process of its own, in any language. It ends when it is dropped.
#[derive(Debug)]
pub struct ServiceProcess {
    child: Child,
    /// Where it serves gRPC, as `127.0.0.1:port`.
    pub address: String,
    /// Where it serves health, readiness and metrics.
    pub admin: String,
}

impl ServiceProcess {
    /// Starts a service on free ports, unless its command has one, without a drain delay, and waits for its log line with the
    /// message `serving`.
    ///
    /// # Panics
    /// When it ends before.
    pub fn start(command: Command) -> Self {
        Self::start_with_delay(command, Duration::ZERO)
    }

    /// As [`Self::start`], with a drain delay.
    ///
    /// # Panics
    /// When it ends before.
    #[expect(clippy::print_stderr, reason = "the log of a failed service explains its failure")]
    pub fn start_with_delay(mut command: Command, delay: Duration) -> Self {
        if !command.get_args().any(|argument| argument == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(["--admin-listen", "127.0.0.1:0"]);
        command.args(["--drain-delay-ms", &delay.as_millis().to_string()]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program");
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let serving = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let event: Option<Value> = serde_json::from_str(&line).ok();
            let event = event.filter(|event| event["message"] == "serving");
            if event.is_none() {
                eprintln!("{line}");
            }
            event
        });
        let serving = serving.unwrap_or_else(|| panic!("{command:?} ended without serving"));
        // A pipe that nothing reads would block the service.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        let text = |field: &str| serving[field].as_str().expect("a text").to_owned();
        Self { child, address: text("address"), admin: text("admin") }
    }

    /// The URL of its gRPC server.
    pub fn url(&self, scheme: &str) -> Url {
        format!("{scheme}://{}", self.address).parse().expect("a URL")
    }

    /// Asks it to stop with SIGTERM, and waits for its end.
    pub fn stop(self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().expect("kill");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("an end")
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        // The error of an exited process is ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
