//! How busy a runtime is.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};

/// The threads of the runtime that this was made on.
#[derive(Debug)]
pub(super) struct Load {
    runtime: RuntimeMetrics,
    since: Instant,
    busy: Duration,
}

impl Load {
    pub(super) fn of_this_runtime() -> Self {
        let runtime = Handle::current().metrics();
        let busy = busy(&runtime);
        Self { runtime, since: Instant::now(), busy }
    }

    /// The share of their time in which its threads had something to do, since this was last asked: from 0 to 1. A thread
    /// that would run if it had a processor has something to do.
    pub(super) fn share(&mut self) -> f64 {
        let (now, busy) = (Instant::now(), busy(&self.runtime));
        let had = (busy - self.busy).as_secs_f64();
        let (workers, passed) = (self.runtime.num_workers(), now - self.since);
        (self.since, self.busy) = (now, busy);
        #[expect(clippy::cast_precision_loss, reason = "there are not so many threads")]
        let could = passed.as_secs_f64() * workers as f64;
        if could > 0.0 { (had / could).min(1.0) } else { 0.0 }
    }
}

fn busy(runtime: &RuntimeMetrics) -> Duration {
    (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHILE: Duration = Duration::from_millis(200);

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_thread_that_works_is_busy_and_one_that_sleeps_is_not() {
        let mut load = Load::of_this_runtime();
        let working = tokio::spawn(async {
            let began = Instant::now();
            while began.elapsed() < WHILE {
                std::thread::sleep(Duration::from_millis(5));
                tokio::task::yield_now().await;
            }
        });
        working.await.unwrap();
        // It is told when the thread has nothing more to do.
        tokio::time::sleep(WHILE / 10).await;
        let busy = load.share();
        tokio::time::sleep(WHILE).await;
        let idle = load.share();
        assert!(busy > idle && idle < 0.5 && busy > 0.5, "{busy} {idle}");
    }
}
