//! The load: a number of connections, each of which calls again once it has an answer.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Makes one call after another, on a connection of its own.
pub(crate) trait Caller: Send + 'static {
    /// Calls. A call that fails ends the benchmark.
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) lasts: Duration,
    /// How long each connection rests between two calls.
    pub(crate) pause: Duration,
}

/// What one load has measured.
pub(crate) struct Sample {
    /// Calls per second.
    pub(crate) rate: f64,
    /// Microseconds of processor time a call: this process's, all threads.
    pub(crate) processor: f64,
    /// How long each call took, in nanoseconds.
    pub(crate) latencies: Vec<u64>,
}

impl Load {
    /// A load without pauses.
    pub(crate) fn new(connections: usize, lasts: Duration) -> Self {
        Self { connections, lasts, pause: Duration::ZERO }
    }

    /// Calls over connections of its own until the time is over.
    pub(crate) async fn run<C: Caller>(&self, connect: impl AsyncFn() -> C) -> Sample {
        let mut callers = Vec::new();
        self.run_with(&mut callers, connect).await
    }

    /// The same over connections that are there, and more where that is not enough.
    pub(crate) async fn run_with<C: Caller>(
        &self,
        callers: &mut Vec<C>,
        connect: impl AsyncFn() -> C,
    ) -> Sample {
        while callers.len() < self.connections {
            callers.push(connect().await);
        }
        let (started, processor) = (Instant::now(), processor_time());
        let (ends, pause) = (started + self.lasts, self.pause);
        let calling = callers.drain(..).map(|mut caller| {
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(32 * 1024);
                let mut last = Instant::now();
                while last < ends {
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
        let calling: Vec<_> = calling.collect();
        let mut latencies = Vec::new();
        for one in calling {
            let (caller, one) = one.await.expect("a caller");
            callers.push(caller);
            latencies.extend(one);
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
