//! A reader of the tutorials.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    REPOSITORY,
    commands::docs::{Block, path_with_the_binary},
    text,
    up::{ChildGuard, first_port, tool},
};

/// How long a mesh or a service may take to start: a service in Rust is built first.
const START_TIMEOUT: Duration = Duration::from_secs(900);
/// The command that a reader leaves running in the first terminal.
const UP: &str = "drawbridge up";
/// The commands that a reader leaves running in the second terminal.
const SERVICES: [&str; 3] = [".venv/bin/python -m rooms_service", "cargo run", "./rooms"];
/// Where they serve.
pub(super) const SERVICE_ADDRESS: &str = "127.0.0.1:7450";
/// The address of the MCP endpoint in the tutorials.
const EDGE: &str = "127.0.0.1:7180";
/// The question of a program that Enter answers.
const PROMPT: &str = "Press Enter to submit";

/// A reader's terminals.
pub(super) struct Reader {
    home: TempDir,
    /// The working folder, which `cd` changes.
    folder: PathBuf,
    /// The first port of its meshes, so that other tests run beside it.
    first_port: u16,
    mesh: Option<ChildGuard>,
    service: Option<ChildGuard>,
}

impl Reader {
    pub(super) fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("work");
        fs::create_dir(&folder).expect("a folder");
        // `npx` finds packages here without the network.
        let modules = home.path().join("node_modules");
        std::os::unix::fs::symlink(tool("inspector/node_modules"), modules).expect("a link");
        Self { home, folder, first_port: first_port(), mesh: None, service: None }
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// A shell that has what `tests/setup.sh` installed, and no need of the network.
    fn bash(&self, script: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", script]).current_dir(&self.folder);
        self.set_environment(&mut bash);
        bash
    }

    fn set_environment(&self, command: &mut Command) {
        let inspector = tool("inspector/node_modules/.bin");
        let binaries = path_with_the_binary();
        let path = [inspector].into_iter().chain(env::split_paths(&binaries));
        let path = env::join_paths(path).expect("a path");
        command.env("PATH", path).env("DRAWBRIDGE_STATE_DIR", self.state());
        command.env("DRAWBRIDGE_UP_FIRST_PORT", self.first_port.to_string());
        command.env("DRAWBRIDGE_UP_EMBEDDED", "true").env("DRAWBRIDGE_LOG", "warn");
        let keys = format!("http://127.0.0.1:{}/.well-known/jwks.json", self.first_port + 11);
        command.env("DRAWBRIDGE_ROOMS_AUTH_JWKS_URL", keys);
        command.env("PIP_NO_INDEX", "true").env("PIP_FIND_LINKS", tool("python-sdk/wheels"));
        command.env("GOPROXY", "off").env("GOMODCACHE", tool("go-modules"));
        // The target folder of this test has most of the dependencies already.
        let binary = env::current_exe().expect("this test's binary");
        command.env("CARGO_TARGET_DIR", binary.ancestors().nth(3).expect("the target folder"));
        command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only").env("CARGO_NET_OFFLINE", "true");
        command.env("npm_config_offline", "true").env("npm_config_update_notifier", "false");
        for name in ["MCP_STORAGE_DIR", "MCP_INSPECTOR_DAEMON_DIR"] {
            command.env(name, self.inspector());
        }
        command.env("MCP_INSPECTOR_SECRET_STORE", "file");
        command.env("MCP_INSPECTOR_SECRET_FILE", self.inspector().join("secrets.json"));
    }

    /// The folder of MCP Inspector's state.
    fn inspector(&self) -> PathBuf {
        self.home.path().join("inspector")
    }

    /// Runs a block as the reader does, and returns what it printed. A last command that is left
    /// running is started; the next block is for another terminal.
    pub(super) fn run(&mut self, block: &Block) -> String {
        let place = format!("{}:{}", block.page, block.line);
        let edge = format!("127.0.0.1:{}", self.first_port + 80);
        let script = block.text.trim_end().replace(EDGE, &edge);
        if block.info == "sh terminal" {
            return self.run_at_a_terminal(&place, &script);
        }
        let (first, last) = split_last(&script);
        let output = self.run_script(&place, first);
        match last {
            Some(command) if command.ends_with(UP) => self.start_mesh(&place, command),
            Some(command) => self.start_service(&place, command),
            None => {}
        }
        output
    }

    fn run_script(&mut self, place: &str, script: &str) -> String {
        let folder = self.home.path().join("folder");
        let script = format!("{}\npwd >{}", inverted(script), folder.display());
        let output = self.bash(&script).stdin(Stdio::null()).output().expect("bash");
        let printed = text(&output.stdout).to_owned();
        assert!(output.status.success(), "{place}:\n{script}\n{printed}{}", text(&output.stderr));
        self.folder = fs::read_to_string(folder).expect("a folder").trim().into();
        printed
    }

    /// Runs a script whose last command asks at the terminal, and presses Enter.
    fn run_at_a_terminal(&self, place: &str, script: &str) -> String {
        let file = self.home.path().join("script");
        fs::write(&file, format!("set -euo pipefail\n{script}\n")).expect("a file");
        let mut terminal = Command::new("script");
        let command = format!("bash {}", file.display());
        terminal.args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
        terminal.current_dir(&self.folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        self.set_environment(&mut terminal);
        let mut child = terminal.spawn().expect("the program script, of util-linux");
        let mut keyboard = child.stdin.take();
        let mut screen = child.stdout.take().expect("its output");
        let (mut printed, mut bytes, mut answered) = (String::new(), [0; 4096], false);
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            printed.push_str(&String::from_utf8_lossy(&bytes[..count]));
            if !answered && printed.contains(PROMPT) {
                keyboard.as_mut().expect("its input").write_all(b"\n").expect("a key");
                answered = true;
            }
        }
        let status = child.wait().expect("an end");
        assert!(status.success() && answered, "{place}:\n{script}\n{printed}");
        printed
    }

    /// Starts a command, and waits until it serves.
    fn background(&self, place: &str, command: &str, serves: impl Fn() -> bool) -> ChildGuard {
        let path = self.home.path().join("log");
        let log = fs::File::create(&path).expect("a file");
        // `exec` takes no variables before the command; `env` does.
        let mut bash = self.bash(&format!("exec env {command}"));
        bash.stdout(log.try_clone().expect("a file")).stderr(log).stdin(Stdio::null());
        let mut child = ChildGuard(bash.spawn().expect("bash"));
        let began = Instant::now();
        while !serves() {
            let ended = child.0.try_wait().expect("a process").is_some();
            let log = || fs::read_to_string(&path).unwrap_or_default();
            let waits = !ended && began.elapsed() < START_TIMEOUT;
            assert!(waits, "{place}: it does not serve:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        child
    }

    fn start_service(&mut self, place: &str, command: &str) {
        if self.folder.join("Cargo.toml").exists() {
            // The versions of this repository, so that nothing is downloaded.
            let lock = Path::new(REPOSITORY).join("Cargo.lock");
            fs::copy(lock, self.folder.join("Cargo.lock")).expect("a file");
        }
        let serves = || TcpStream::connect(SERVICE_ADDRESS).is_ok();
        self.service = Some(self.background(place, command, serves));
        self.folder = self.home.path().join("work/demo");
    }

    fn start_mesh(&mut self, place: &str, command: &str) {
        self.mesh = Some(self.background(place, command, || has_mesh(&self.state())));
    }

    /// Stops what is left running.
    pub(super) fn stop(&mut self) {
        for mut child in [self.service.take(), self.mesh.take()].into_iter().flatten() {
            let _ = Command::new("kill").args(["-INT", &child.0.id().to_string()]).status();
            let _ = child.0.wait();
        }
        if self.inspector().exists() {
            let _ = self.bash("mcpdo daemon stop").output();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

fn has_mesh(state: &Path) -> bool {
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| {
        name.to_str().is_some_and(|name| name.starts_with("mesh-") && name.ends_with(".json"))
    })
}

/// The commands before the last one, and the last one if it is left running.
fn split_last(script: &str) -> (&str, Option<&str>) {
    let start = ["\n", " && "].iter().filter_map(|end| Some(script.rfind(end)? + end.len())).max();
    let (first, last) = script.split_at(start.unwrap_or(0));
    if last.ends_with(UP) || SERVICES.contains(&last) {
        (first.trim_end_matches([' ', '&', '\n']), Some(last))
    } else {
        (script, None)
    }
}

/// The script with each line `! command` failing if the command succeeds: bash by itself checks only
/// the last command.
fn inverted(script: &str) -> String {
    let line = |line: &str| match line.strip_prefix("! ") {
        Some(command) => format!("if {command}; then echo 'it should have failed' >&2; exit 9; fi"),
        None => line.to_owned(),
    };
    script.lines().map(line).collect::<Vec<_>>().join("\n")
}
