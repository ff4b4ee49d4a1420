//! The figures of the runtime that runs the service, which a scrape records.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::metrics::{TOKIO_BUSY, TOKIO_QUEUE, TOKIO_TASKS, TOKIO_WORKERS};

/// Records the current figures. Must be called within the runtime.
pub(super) fn record() {
    let figures = Handle::current().metrics();
    let workers = figures.num_workers();
    let busy: Duration = (0..workers).map(|it| figures.worker_total_busy_duration(it)).sum();
    TOKIO_WORKERS.get().set(count(workers));
    TOKIO_TASKS.get().set(count(figures.num_alive_tasks()));
    TOKIO_QUEUE.get().set(count(figures.global_queue_depth()));
    TOKIO_BUSY.get().absolute(busy.as_secs());
}

fn count(figure: usize) -> f64 {
    f64::from(u32::try_from(figure).unwrap_or(u32::MAX))
}
