//! How busy a runtime is.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};

/// Samples the worker threads of one runtime.
#[derive(Debug)]
pub(super) struct RuntimeBusyRatio {
    runtime: RuntimeMetrics,
    sampled_at: Instant,
    busy: Duration,
}

impl RuntimeBusyRatio {
    pub(super) fn of_current_runtime() -> Self {
        let runtime = Handle::current().metrics();
        let busy = busy(&runtime);
        Self { runtime, sampled_at: Instant::now(), busy }
    }

    /// The share of time, from 0 to 1, in which the workers were busy since the last sample. A
    /// worker that is runnable but waits for a processor counts as busy.
    pub(super) fn sample(&mut self) -> f64 {
        let (now, busy) = (Instant::now(), busy(&self.runtime));
        let worked = (busy - self.busy).as_secs_f64();
        let (workers, elapsed) = (self.runtime.num_workers(), now - self.sampled_at);
        (self.sampled_at, self.busy) = (now, busy);
        #[expect(clippy::cast_precision_loss, reason = "the number of threads is small")]
        let available = elapsed.as_secs_f64() * workers as f64;
        if available > 0.0 { (worked / available).min(1.0) } else { 0.0 }
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
    async fn a_working_thread_is_busy_and_a_sleeping_one_is_idle() {
        let mut ratio = RuntimeBusyRatio::of_current_runtime();
        let working = tokio::spawn(async {
            let started = Instant::now();
            while started.elapsed() < WHILE {
                std::thread::sleep(Duration::from_millis(5));
                tokio::task::yield_now().await;
            }
        });
        working.await.unwrap();
        // The runtime updates the metric when a worker parks.
        tokio::time::sleep(WHILE / 10).await;
        let busy = ratio.sample();
        tokio::time::sleep(WHILE).await;
        let idle = ratio.sample();
        assert!(busy > idle && idle < 0.5 && busy > 0.5, "{busy} {idle}");
    }
}
