//! Who runs where.

use std::{fs, path::Path};

use drawbridge_tests::Redis;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// Gives the threads of this name, and those that they start, a processor of their own. All others of this process share
/// the rest with Redis.
pub(crate) fn divide(name: &str, redis: &Redis) {
    let all = sched_getaffinity(None).expect("the processors of this process");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).expect("a processor");
    let (mut own, mut rest) = (CpuSet::new(), all);
    own.set(first);
    rest.unset(first);
    assert!(rest.count() > 0, "with one processor there is none for the edge alone");
    for (thread, id) in threads("/proc/self/task") {
        settle(id, if thread == name { &own } else { &rest });
    }
    for (_, id) in threads(format!("/proc/{}/task", redis.process_id())) {
        settle(id, &rest);
    }
}

/// The threads of a process, by name. One may end meanwhile.
fn threads(tasks: impl AsRef<Path>) -> Vec<(String, Pid)> {
    let thread = |path: &Path| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let id = path.file_name()?.to_str()?.parse().ok()?;
        Some((name.trim_end().to_owned(), Pid::from_raw(id)?))
    };
    let tasks = fs::read_dir(tasks).expect("the threads of a process");
    tasks.filter_map(|task| thread(&task.expect("a thread").path())).collect()
}

fn settle(thread: Pid, processors: &CpuSet) {
    match sched_setaffinity(Some(thread), processors) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("cannot move a thread: {error}"),
    }
}
