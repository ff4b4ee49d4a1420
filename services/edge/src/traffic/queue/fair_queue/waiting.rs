//! The calls that wait in a queue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Busy, CallerHash, FairQueue, Permit};

/// A call that waits in a queue.
pub(super) struct Waiting<'a> {
    pub(super) fair_queue: &'a Arc<FairQueue>,
    pub(super) queue: usize,
    pub(super) caller: CallerHash,
    pub(super) id: u64,
    pub(super) granted: oneshot::Receiver<()>,
    pub(super) is_over: bool,
}

impl Waiting<'_> {
    pub(super) async fn wait(mut self, timeout: Duration) -> Result<Permit, Busy> {
        let started = Instant::now();
        let granted = tokio::time::timeout(timeout, &mut self.granted).await;
        let (fair_queue, queue, caller) = (self.fair_queue, self.queue, self.caller);
        self.is_over = granted.is_ok();
        drop(self);
        let state = fair_queue.state();
        state.queues[queue].metrics.waited.record(started.elapsed());
        match granted {
            Ok(Ok(())) => Ok(Permit { fair_queue: Arc::clone(fair_queue), queue, caller }),
            // Evicted in favor of another caller.
            Ok(Err(_)) => Err(state.reject(queue, Busy::Caller)),
            Err(_) if state.is_at_limit(caller) => Err(state.reject(queue, Busy::Caller)),
            Err(_) => Err(state.reject(queue, Busy::Queue)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.fair_queue.state();
        // A waiter that is dropped just after it was granted a permit passes it to the next one.
        if !state.remove_waiter(self.queue, self.caller, self.id) && self.granted.try_recv().is_ok()
        {
            state.finish(self.queue, self.caller);
            state.dispatch();
        }
    }
}
