//! The threads of a process.

use std::{fs, path::Path};

use rustix::thread::Pid;

/// The threads of a process with their names. Threads that exit meanwhile are omitted.
pub(crate) fn threads(tasks: impl AsRef<Path>) -> Vec<(String, Pid)> {
    let thread = |path: &Path| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let id = path.file_name()?.to_str()?.parse().ok()?;
        Some((name.trim_end().to_owned(), Pid::from_raw(id)?))
    };
    let tasks = fs::read_dir(tasks).expect("the threads of a process");
    tasks.filter_map(|task| thread(&task.expect("a thread").path())).collect()
}
