//! The assignment of threads to processors.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::threads::threads;

/// Gives the threads of these names, and the threads that they start, their own processor. All
/// other threads of this process share the rest with the processes `others`.
pub(crate) fn divide(names: &[&str], others: &[u32]) {
    let all = sched_getaffinity(None).expect("the processors of this process");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).expect("a processor");
    let (mut own, mut rest) = (CpuSet::new(), all);
    own.set(first);
    rest.unset(first);
    assert!(rest.count() > 0, "this needs two processors: one for the edge alone");
    for (thread, id) in threads("/proc/self/task") {
        assign(id, if names.contains(&thread.as_str()) { &own } else { &rest });
    }
    for process in others {
        for (_, id) in threads(format!("/proc/{process}/task")) {
            assign(id, &rest);
        }
    }
}

fn assign(thread: Pid, processors: &CpuSet) {
    match sched_setaffinity(Some(thread), processors) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("cannot move a thread: {error}"),
    }
}
