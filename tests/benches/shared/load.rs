//! A closed-loop load: each connection calls again once it has a response.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Makes sequential calls on its own connection.
pub(crate) trait Caller: Send + 'static {
    /// Makes one call. A failure ends the benchmark.
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    /// The pause of each connection between two calls.
    pub(crate) pause: Duration,
}

/// The measurements of one load.
pub(crate) struct Sample {
    /// Calls per second.
    pub(crate) rate: f64,
    /// The processor time per call in microseconds, of all threads of this process.
    pub(crate) processor: f64,
    /// The latency of each call, in nanoseconds.
    pub(crate) latencies: Vec<u64>,
}

impl Load {
    /// A load without pauses.
    pub(crate) fn new(connections: usize, duration: Duration) -> Self {
        Self { connections, duration, pause: Duration::ZERO }
    }

    /// Runs the load over new connections for its duration.
    pub(crate) async fn run<C: Caller>(&self, connect: impl AsyncFn() -> C) -> Sample {
        let mut callers = Vec::new();
        self.run_with(&mut callers, connect).await
    }

    /// Runs the load over existing connections, and opens more if they are too few.
    pub(crate) async fn run_with<C: Caller>(
        &self,
        callers: &mut Vec<C>,
        connect: impl AsyncFn() -> C,
    ) -> Sample {
        while callers.len() < self.connections {
            callers.push(connect().await);
        }
        let (started, processor) = (Instant::now(), processor_time());
        let (deadline, pause) = (started + self.duration, self.pause);
        let tasks = callers.drain(..).map(|mut caller| {
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(32 * 1024);
                let mut last = Instant::now();
                while last < deadline {
                    caller.call().await;
                    let now = Instant::now();
                    latencies.push(u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX));
                    last = now;
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                        last = Instant::now();
                    }
                }
                (caller, latencies)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let mut latencies = Vec::new();
        for task in tasks {
            let (caller, measured) = task.await.expect("a caller");
            callers.push(caller);
            latencies.extend(measured);
        }
        let processor = processor_time() - processor;
        #[expect(clippy::cast_precision_loss, reason = "it is a count of calls")]
        let calls = latencies.len() as f64;
        let rate = calls / started.elapsed().as_secs_f64();
        Sample { rate, processor: processor.as_secs_f64() * 1e6 / calls, latencies }
    }
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("a time after the start")
}
