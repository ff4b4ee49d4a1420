//! The tutorials, run from their own text in an empty folder, one after another.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    commands::docs::{Block, blocks, path_with_the_binary},
    text,
    up::{first_port, tool},
};

/// How long a mesh or a service may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The commands that a reader leaves running.
const UP: &str = "drawbridge up";
const SERVICE: &str = ".venv/bin/python -m rooms_service";
const SERVICE_ADDRESS: &str = "127.0.0.1:7450";

/// A reader of the tutorials: its terminals.
struct Reader {
    home: TempDir,
    /// The working folder, which `cd` changes.
    folder: PathBuf,
    /// The first port of its meshes, so that other tests run beside it.
    first_port: u16,
    mesh: Option<Child>,
    service: Option<Child>,
}

impl Reader {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("work");
        fs::create_dir(&folder).expect("a folder");
        Self { home, folder, first_port: first_port(), mesh: None, service: None }
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn bash(&self, script: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", script]).current_dir(&self.folder);
        bash.env("PATH", path_with_the_binary()).env("DRAWBRIDGE_STATE_DIR", self.state());
        bash.env("DRAWBRIDGE_UP_FIRST_PORT", self.first_port.to_string());
        bash.env("DRAWBRIDGE_UP_EMBEDDED", "true").env("DRAWBRIDGE_LOG", "warn");
        let keys = format!("http://127.0.0.1:{}/.well-known/jwks.json", self.first_port + 11);
        bash.env("DRAWBRIDGE_ROOMS_AUTH_JWKS_URL", keys);
        // What `tests/setup.sh` has installed.
        let wheels = tool("python-sdk/wheels");
        bash.env("PIP_NO_INDEX", "true").env("PIP_FIND_LINKS", wheels);
        bash
    }

    /// Runs a block as the reader does. [`UP`] and [`SERVICE`], each the last command of its block,
    /// are started and left running.
    fn run(&mut self, block: &Block) {
        let place = format!("{}:{}", block.page, block.line);
        let script = block.text.trim_end();
        let (first, last) = match script.rsplit_once('\n') {
            Some((first, last)) if [UP, SERVICE].contains(&last) => (first, Some(last)),
            _ => (script, None),
        };
        let folder = self.home.path().join("folder");
        let script = format!("{}\npwd >{}", inverted(first), folder.display());
        let output = self.bash(&script).output().expect("bash");
        assert!(
            output.status.success(),
            "{place}:\n{script}\n{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        self.folder = fs::read_to_string(folder).expect("a folder").trim().into();
        match last {
            Some(UP) => self.start_mesh(&place),
            Some(_) => self.start_service(&place),
            None => {}
        }
    }

    fn background(&self, log: &str, command: &str) -> Child {
        let log = fs::File::create(self.home.path().join(log)).expect("a file");
        let mut bash = self.bash(&format!("exec {command}"));
        bash.stdout(log.try_clone().expect("a file")).stderr(log).stdin(Stdio::null());
        bash.spawn().expect("bash")
    }

    fn start_service(&mut self, place: &str) {
        self.service = Some(self.background("service.log", SERVICE));
        self.wait(place, "service.log", || TcpStream::connect(SERVICE_ADDRESS).is_ok());
    }

    fn start_mesh(&mut self, place: &str) {
        self.mesh = Some(self.background("up.log", UP));
        self.wait(place, "up.log", || has_mesh(&self.state()));
    }

    fn wait(&self, place: &str, log: &str, serves: impl Fn() -> bool) {
        let began = Instant::now();
        while !serves() {
            let log = || fs::read_to_string(self.home.path().join(log)).unwrap_or_default();
            assert!(began.elapsed() < START_TIMEOUT, "{place}: it does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) {
        for mut child in [self.service.take(), self.mesh.take()].into_iter().flatten() {
            let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            let _ = child.wait();
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

/// The script with each line `! command` failing if the command succeeds: bash by itself checks only
/// the last command.
fn inverted(script: &str) -> String {
    let line = |line: &str| match line.strip_prefix("! ") {
        Some(command) => format!("if {command}; then echo 'it should have failed' >&2; exit 9; fi"),
        None => line.to_owned(),
    };
    script.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_command_of_the_tutorials_runs_in_their_order() {
    let mut reader = Reader::new();
    let mut run = 0;
    for page in ["first-call", "first-policy", "first-limit", "first-tool"] {
        for block in blocks(&format!("docs/tutorials/{page}.md")) {
            if block.info == "sh" {
                reader.run(&block);
                run += 1;
            }
        }
    }
    assert!(run >= 20, "only {run} blocks were run");
}
