//! Run folders: removed, and the servers in them stopped, when the process ends, however it ends.
//!
//! A killed process cannot clean up. A watchdog shell does it once the process has exited; if the
//! watchdog was killed too, the next `drawbridge up` does. A parent-death signal would not remove
//! folders, and Linux clears it for programs with file capabilities, such as HashiCorp's packaged
//! `vault`.

use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_runtime::private_files;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const PREFIX: &str = "drawbridge-";
/// Locked while the process that owns the folder runs.
const OWNER: &str = "owner.lock";
/// Holds the process id of the folder's server.
const PID: &str = "server.pid";
/// How long a leftover server may take to exit.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Reads folder names until end of input, which is when the process that writes them has exited. It
/// then stops the servers in those folders and removes the folders that remain. It skips a folder
/// that another user has since created under the same name, and a process whose working directory
/// is elsewhere.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
set -f
IFS='
'
folders=$(cat)
pids=
is_own() { [ -d "$1" ] && [ -O "$1" ] && [ ! -L "$1" ]; }
runs_in() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
    [ ! -e /proc/self/cwd ] || case $(readlink "/proc/$1/cwd")/ in "$2"/*) ;; *) return 1 ;; esac
}
for folder in $folders; do
    is_own "$folder" && read -r pid <"$folder/server.pid" && runs_in "$pid" "$folder" || continue
    kill -INT "$pid"
    pids="$pids$pid $folder
"
done
for server in $pids; do
    pid=${server%% *} folder=${server#* } tries=0
    while kill -0 "$pid" && [ "$tries" -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    is_own "$folder" && runs_in "$pid" "$folder" && kill -KILL "$pid"
done
for folder in $folders; do
    is_own "$folder" && rm -rf -- "$folder"
done
"#;

/// A folder that is removed when this process ends, after the server in it was stopped.
#[derive(Debug)]
pub struct RunFolder {
    folder: TempDir,
    /// Locked until the folder is removed.
    _owner: File,
}

impl RunFolder {
    /// Creates a folder that only this user may enter.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn new() -> io::Result<Self> {
        let own = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(PREFIX).permissions(own).tempdir()?;
        // Locked before the file gets its name: a folder with an unlocked file counts as a
        // leftover.
        let owner = private_files::replace_with(&folder.path().join(OWNER), b"", |file| {
            Ok(file.try_lock()?)
        })?;
        // Canonical, to match /proc/<pid>/cwd.
        register_with_watchdog(&folder.path().canonicalize()?);
        Ok(Self { folder, _owner: owner })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Records the process to stop when the folder is removed.
    pub(crate) fn write_server_pid(&self, pid: u32) -> io::Result<()> {
        private_files::replace(&self.path().join(PID), format!("{pid}\n").as_bytes()).map(drop)
    }

    /// Removes the record: the server has exited, and its pid may be reused.
    pub(crate) fn remove_server_pid(&self) {
        // The file is absent if no server was recorded.
        let _ = fs::remove_file(self.path().join(PID));
    }
}

/// Registers a folder, to be removed and its server stopped once this process has exited.
fn register_with_watchdog(folder: &Path) {
    static INPUT: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();
    let Some(input) = INPUT.get_or_init(start_watchdog) else { return };
    let mut line = folder.as_os_str().as_encoded_bytes().to_vec();
    if line.contains(&b'\n') {
        return;
    }
    line.push(b'\n');
    let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = input.write_all(&line) {
        tracing::warn!(%error, "the watchdog is unavailable; after a kill, servers run until the \
            next start");
    }
}

fn start_watchdog() -> Option<Mutex<ChildStdin>> {
    let mut command = Command::new("/bin/sh");
    // In its own process group, without output: a reader of this process's output must see its end.
    command.args(["-c", WATCHDOG, "drawbridge-watchdog"]).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => child.stdin.take().map(Mutex::new),
        Err(error) => {
            tracing::warn!(%error, "the watchdog is unavailable; after a kill, servers run until \
                the next start");
            None
        }
    }
}

/// Stops servers and removes run folders in the temporary folder that killed processes of this user
/// left. Folders that cannot be removed remain.
pub fn remove_leftovers() {
    let entries = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    let is_run_folder = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
    };
    for folder in entries.map(|entry| entry.path()).filter(is_run_folder) {
        if is_leftover(&folder) {
            stop_server(&folder);
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove the run folder \
                    of a killed mesh");
            }
        }
    }
}

/// Whether the folder is this user's, and the process that created it has exited.
fn is_leftover(folder: &Path) -> bool {
    let is_own = fs::symlink_metadata(folder)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw());
    is_own
        && private_files::open(&folder.join(OWNER))
            .is_ok_and(|owner| owner.try_lock_shared().is_ok())
}

/// Stops the server of a folder, unless its pid now belongs to another process.
fn stop_server(folder: &Path) {
    let Ok(text) = fs::read_to_string(folder.join(PID)) else { return };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return };
    let started = Instant::now();
    let mut signal = Signal::INT;
    while runs_in(pid, folder) && started.elapsed() < 2 * STOP_DEADLINE {
        // Fails if it has exited meanwhile.
        let _ = kill_process(pid, signal);
        if started.elapsed() > STOP_DEADLINE {
            signal = Signal::KILL;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Whether a process's working directory is in a folder. Without /proc the answer is no.
fn runs_in(pid: Pid, folder: &Path) -> bool {
    let working = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
    let folder = folder.canonicalize();
    working.is_ok_and(|working| folder.is_ok_and(|folder| working.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_folder_is_a_leftover_only_once_its_process_has_exited() {
        let folder = RunFolder::new().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!is_leftover(&path));
        let RunFolder { folder, _owner } = folder;
        drop(_owner);
        // A child that another test is spawning holds the lock until it calls exec.
        let dropped = Instant::now();
        while !is_leftover(&path) {
            assert!(dropped.elapsed() < STOP_DEADLINE, "the folder still counts as in use");
            std::thread::sleep(POLL_INTERVAL);
        }
        // A folder without the lock file is not ours.
        fs::remove_file(path.join(OWNER)).unwrap();
        assert!(!is_leftover(&path));
        drop(folder);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn stop_server_signals_only_a_process_that_runs_in_the_folder() {
        let folder = RunFolder::new().unwrap();
        let run = |folder_path: &Path| {
            Command::new("sleep").arg("60").current_dir(folder_path).spawn().unwrap()
        };
        let (mut inside, mut elsewhere) = (run(folder.path()), run(Path::new("/")));
        folder.write_server_pid(elsewhere.id()).unwrap();
        stop_server(folder.path());
        assert!(elsewhere.try_wait().unwrap().is_none(), "the pid belongs to a process elsewhere");
        folder.write_server_pid(inside.id()).unwrap();
        let waiting = std::thread::spawn(move || inside.wait().unwrap());
        stop_server(folder.path());
        assert!(!waiting.join().unwrap().success());
        elsewhere.kill().unwrap();
        elsewhere.wait().unwrap();
    }
}
