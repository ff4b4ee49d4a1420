//! `drawbridge top`: figures of a real mesh, on a real terminal.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::Value;

use crate::{Up, drawbridge, new_state, text, up::ChildGuard};

/// How long output of the terminal may take. A failure takes that long, a success does not.
const PATIENCE: Duration = Duration::from_secs(60);

fn call(up: &Up, user: &str, arguments: &str) -> bool {
    let called = up.run("tools", &["call", "--user", user, "code_search", arguments]);
    called.status.success()
}

#[test]
fn top_shows_the_calls_and_failures_of_each_tool_and_the_health_of_each_service() {
    let up = Up::with(&["--embedded"]);
    assert!(call(&up, "alice", r#"{"query":"fn main"}"#));
    assert!(!call(&up, "alice", r#"{"query":""}"#), "an error of the tool");
    assert!(!call(&up, "bob", r#"{"query":"fn main"}"#), "a denial");
    let figures = up.run("top", &["--json", "--interval-ms", "100"]);
    let figures: Value = serde_json::from_str(text(&figures.stdout)).expect("JSON");
    let tools = figures["tools"].as_array().expect("tools");
    let search = tools.iter().find(|tool| tool["name"] == "code_search");
    let search = search.unwrap_or_else(|| panic!("{figures:#}"));
    assert_eq!(search["outcomes"]["ok"], 1.0, "{figures:#}");
    let outcomes = search["outcomes"].as_object().expect("outcomes");
    let failed: f64 =
        outcomes.iter().filter(|it| it.0 != "ok").filter_map(|it| it.1.as_f64()).sum();
    assert!(failed >= 1.0, "{figures:#}");
    assert!(search["latency"]["p95"].as_f64().is_some_and(|p95| p95 > 0.0), "{figures:#}");
    let services = figures["services"].as_array().expect("services");
    for name in ["edge", "auth", "code", "invoices", "tickets", "idp"] {
        let service = services.iter().find(|service| service["name"] == name);
        let service = service.unwrap_or_else(|| panic!("no {name}: {figures:#}"));
        assert_eq!((&service["health"], &service["version"]), (&"ready".into(), &"0.1.0".into()));
    }
    // Without a terminal.
    let plain = up.run("top", &["--interval-ms", "100"]);
    let plain = text(&plain.stdout);
    assert!(plain.contains("calls/s") && plain.contains("code_search"), "{plain}");
    assert!(!plain.contains('\u{1b}'), "{plain}");
    up.stop();
}

#[test]
fn top_without_a_service_that_answers_fails() {
    let top = |arguments: &[&str]| {
        let mut top = drawbridge(new_state().path());
        top.args(["top", "--once", "--interval-ms", "100"]).args(arguments).output().expect("top")
    };
    let none = top(&[]);
    assert!(text(&none.stderr).contains("no services: start a mesh, or give --admin"));
    let away = top(&["--admin", "edge-1=http://127.0.0.1:1"]);
    assert_eq!(away.status.code(), Some(1));
    assert!(text(&away.stdout).contains("edge-1") && text(&away.stdout).contains("no answer"));
    assert!(text(&away.stderr).contains("no admin port could be read"));
}

/// A terminal with a process in it.
struct Terminal {
    master: File,
    output: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn new(columns: u16, lines: u16) -> (Self, [OwnedFd; 3]) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
        let path = ptsname(&master, Vec::new()).expect("its name").into_string().expect("text");
        let slave = OpenOptions::new().read(true).write(true).open(path).expect("its other side");
        let copy = || OwnedFd::from(slave.try_clone().expect("a copy"));
        let stdio = [copy(), copy(), copy()];
        let master = File::from(master);
        let (sender, output) = mpsc::channel();
        let mut reader = master.try_clone().expect("a copy");
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with an error when the last process of the terminal has.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self { master, output, shown: String::new() };
        terminal.resize(columns, lines);
        (terminal, stdio)
    }

    fn resize(&self, columns: u16, lines: u16) {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a size");
    }

    /// Waits until the output has this text, and forgets what came before.
    fn wait_for(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let Ok(bytes) = self.output.recv_timeout(PATIENCE) else {
                panic!("no {text:?} in {:?}", self.shown);
            };
            self.shown += &String::from_utf8_lossy(&bytes);
        }
        self.shown.clear();
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a key");
    }
}

#[test]
fn the_screen_follows_the_size_of_the_terminal_and_q_restores_it() {
    let (mut terminal, [stdin, stdout, stderr]) = Terminal::new(80, 24);
    // A session of its own, whose terminal it is: resizes are signals.
    let mut top = Command::new("setsid");
    top.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_drawbridge"), "top"]);
    top.args(["--admin", "edge-1=http://127.0.0.1:1", "--interval-ms", "100"]);
    top.stdin(stdin).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let mut top = ChildGuard(top.env("TERM", "xterm-256color").spawn().expect("setsid"));
    // The alternate screen, and the last line.
    terminal.wait_for("\u{1b}[?1049h");
    terminal.wait_for("\u{1b}[24;1H");
    terminal.resize(100, 30);
    terminal.wait_for("\u{1b}[30;1H");
    terminal.press("s");
    terminal.wait_for("p95");
    terminal.press("q");
    terminal.wait_for("\u{1b}[?1049l");
    assert!(top.0.wait().expect("an end").success());
}
