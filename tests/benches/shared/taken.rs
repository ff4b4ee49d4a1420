//! The processor time that threads have taken.

use std::{collections::BTreeMap, fs, time::Duration};

use crate::threads::threads;

/// The processor time that the threads of a process have taken so far, by their names: `self` or the id of a process.
pub(crate) fn by_thread(process: &str) -> BTreeMap<String, Duration> {
    let tasks = format!("/proc/{process}/task");
    let mut times: BTreeMap<String, Duration> = BTreeMap::new();
    for (name, id) in threads(&tasks) {
        let path = format!("{tasks}/{}/schedstat", id.as_raw_nonzero());
        // A thread may have ended meanwhile.
        let Ok(text) = fs::read_to_string(path) else { continue };
        let nanoseconds = text.split_whitespace().next().and_then(|text| text.parse().ok());
        *times.entry(name).or_default() += Duration::from_nanos(nanoseconds.unwrap_or_default());
    }
    times
}
