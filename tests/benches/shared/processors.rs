//! Which threads run on which processor.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::threads::threads;

/// Gives the threads of these names, and those that they start, a processor of their own. All others of this process
/// share the rest with the processes `beside`.
pub(crate) fn divide(names: &[&str], beside: &[u32]) {
    let all = sched_getaffinity(None).expect("the processors of this process");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).expect("a processor");
    let (mut own, mut rest) = (CpuSet::new(), all);
    own.set(first);
    rest.unset(first);
    assert!(rest.count() > 0, "with one processor there is none for the edge alone");
    for (thread, id) in threads("/proc/self/task") {
        settle(id, if names.contains(&thread.as_str()) { &own } else { &rest });
    }
    for process in beside {
        for (_, id) in threads(format!("/proc/{process}/task")) {
            settle(id, &rest);
        }
    }
}

fn settle(thread: Pid, processors: &CpuSet) {
    match sched_setaffinity(Some(thread), processors) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("cannot move a thread: {error}"),
    }
}
