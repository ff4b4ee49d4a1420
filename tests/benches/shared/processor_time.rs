//! The processor time of threads.

use std::{collections::BTreeMap, fs, time::Duration};

use crate::threads::threads;

/// The processor time that a process's threads have used so far, by thread name. `process` is
/// `self` or a process id.
pub(crate) fn by_thread(process: &str) -> BTreeMap<String, Duration> {
    let tasks = format!("/proc/{process}/task");
    let mut times: BTreeMap<String, Duration> = BTreeMap::new();
    for (name, id) in threads(&tasks) {
        let path = format!("{tasks}/{}/schedstat", id.as_raw_nonzero());
        // The thread may have exited.
        let Ok(text) = fs::read_to_string(path) else { continue };
        let nanoseconds = text.split_whitespace().next().and_then(|text| text.parse().ok());
        *times.entry(name).or_default() += Duration::from_nanos(nanoseconds.unwrap_or_default());
    }
    times
}
