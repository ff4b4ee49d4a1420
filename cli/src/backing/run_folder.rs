//! Folders of one run, with the servers in them, which end with the process however it does.
//!
//! A process that is killed cleans nothing up. Two things do it for it: a shell that waits until
//! the process is gone, and the next `drawbridge up`, for when that shell was killed too. A
//! parent-death signal would do for neither folders nor programs with capabilities of their own,
//! such as HashiCorp's packaged `vault`, for which Linux clears it.

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

use drawbridge_sdk::own;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const PREFIX: &str = "drawbridge-";
/// Locked while the process runs whose folder it is.
const OWNER: &str = "owner.lock";
/// The process of the server whose folder it is.
const PID: &str = "server.pid";
/// How long a server of before may take to end.
const END_DEADLINE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Reads folders until its input ends, which is when the process that wrote them has ended. What is
/// left of them by then it removes, and first the servers in them. A folder may be another user's by
/// then, who made one of the same name: it is passed over, and so is a process that does not work in
/// its folder.
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

/// A folder that goes with this process, and with the server that runs in it.
#[derive(Debug)]
pub(crate) struct RunFolder {
    folder: TempDir,
    /// Held until the folder is removed.
    _owner: File,
}

impl RunFolder {
    /// A new folder, which this user alone may enter.
    pub(crate) fn new() -> io::Result<Self> {
        let own = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(PREFIX).permissions(own).tempdir()?;
        // Before the file has its name: whoever finds it unlocked takes the folder for one of a
        // process that has ended.
        let owner =
            own::replace_with(&folder.path().join(OWNER), b"", |file| Ok(file.try_lock()?))?;
        // As the system writes where a process works.
        watch(&folder.path().canonicalize()?);
        Ok(Self { folder, _owner: owner })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Says which process is to end with the folder.
    pub(crate) fn set_server(&self, pid: u32) -> io::Result<()> {
        own::replace(&self.path().join(PID), format!("{pid}\n").as_bytes()).map(drop)
    }

    /// That process has ended: its number may become another's.
    pub(crate) fn clear_server(&self) {
        // Without a server there is none.
        let _ = fs::remove_file(self.path().join(PID));
    }
}

/// Has a folder removed, and the server in it ended, when this process has ended.
fn watch(folder: &Path) {
    static INPUT: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();
    let Some(input) = INPUT.get_or_init(start_watchdog) else { return };
    let mut line = folder.as_os_str().as_encoded_bytes().to_vec();
    if line.contains(&b'\n') {
        return;
    }
    line.push(b'\n');
    let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = input.write_all(&line) {
        tracing::warn!(%error, "what is killed leaves its servers behind until the next start");
    }
}

fn start_watchdog() -> Option<Mutex<ChildStdin>> {
    let mut command = Command::new("/bin/sh");
    // In a group of its own, and with no output: whatever reads that of this process sees its end.
    command.args(["-c", WATCHDOG, "drawbridge-watchdog"]).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => child.stdin.take().map(Mutex::new),
        Err(error) => {
            tracing::warn!(%error, "what is killed leaves its servers behind until the next start");
            None
        }
    }
}

/// Removes what processes of this user left in the folder for temporary files when they were
/// killed, and first the servers that still run there. What cannot be removed stays.
pub(crate) fn remove_left_over() {
    let entries = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
    };
    for folder in entries.map(|entry| entry.path()).filter(named) {
        if is_left_over(&folder) {
            end_server(&folder);
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "what a killed mesh left cannot be removed");
            }
        }
    }
}

/// Whether the folder is this user's, and the process that made it has ended.
fn is_left_over(folder: &Path) -> bool {
    let is_own = fs::symlink_metadata(folder)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw());
    is_own && own::open(&folder.join(OWNER)).is_ok_and(|owner| owner.try_lock_shared().is_ok())
}

/// Ends the server of a folder, if it is still that: another process may have its number by now.
fn end_server(folder: &Path) {
    let Ok(text) = fs::read_to_string(folder.join(PID)) else { return };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return };
    let started = Instant::now();
    let mut signal = Signal::INT;
    while runs_in(pid, folder) && started.elapsed() < 2 * END_DEADLINE {
        // One that has ended meanwhile gets no signal.
        let _ = kill_process(pid, signal);
        if started.elapsed() > END_DEADLINE {
            signal = Signal::KILL;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether a process works in a folder. Where the system does not say, it counts as another one.
fn runs_in(pid: Pid, folder: &Path) -> bool {
    let working = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
    let folder = folder.canonicalize();
    working.is_ok_and(|working| folder.is_ok_and(|folder| working.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_not_left_over_and_one_whose_process_has_ended_is() {
        let folder = RunFolder::new().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!is_left_over(&path));
        let RunFolder { folder, _owner } = folder;
        drop(_owner);
        // A process that another test is just starting has the lock until it has its own program.
        let dropped = Instant::now();
        while !is_left_over(&path) {
            assert!(dropped.elapsed() < END_DEADLINE, "the folder is taken for one in use");
            std::thread::sleep(LOOK_EVERY);
        }
        // One without the file is somebody else's.
        fs::remove_file(path.join(OWNER)).unwrap();
        assert!(!is_left_over(&path));
        drop(folder);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_server_of_a_folder_is_ended_and_a_process_elsewhere_is_not() {
        let folder = RunFolder::new().unwrap();
        let run =
            |place: &Path| Command::new("sleep").arg("60").current_dir(place).spawn().unwrap();
        let (mut there, mut elsewhere) = (run(folder.path()), run(Path::new("/")));
        folder.set_server(elsewhere.id()).unwrap();
        end_server(folder.path());
        assert!(
            elsewhere.try_wait().unwrap().is_none(),
            "it has the number, and is another process"
        );
        folder.set_server(there.id()).unwrap();
        let waiting = std::thread::spawn(move || there.wait().unwrap());
        end_server(folder.path());
        assert!(!waiting.join().unwrap().success());
        elsewhere.kill().unwrap();
        elsewhere.wait().unwrap();
    }
}
