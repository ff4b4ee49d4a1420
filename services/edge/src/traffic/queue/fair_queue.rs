//! Fair queues: how many calls run at once per caller and per queue, and which waiting call is
//! next.
//!
//! The callers in a queue are served round robin, one call each, so that no caller waits behind the
//! backlog of another. A queue that has not drained for a while belongs to something that cannot
//! keep up: later callers may get a shorter timeout, because a longer wait would help no caller
//! (controlled delay).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_runtime::metric::{Counter, Gauge, Histogram};
use tokio::sync::oneshot;
use tracing::{Instrument as _, field::Empty};

use self::waiting::Waiting;

mod waiting;

/// A queue that has not been empty for this long is backlogged.
const BACKLOGGED_AFTER: Duration = Duration::from_millis(100);

/// The calls that run and wait on this replica.
#[derive(Debug)]
pub(crate) struct FairQueue {
    state: Mutex<State>,
    hasher: RandomState,
    metrics: fn(&str) -> QueueMetrics,
}

/// How many calls may run and wait at once, and how long they may wait.
#[derive(Clone, Debug)]
pub(super) struct QueueLimits {
    /// Running calls of one caller, in all queues.
    pub(super) per_caller: usize,
    /// Running calls of a queue that `queues` does not list.
    pub(super) per_queue: usize,
    pub(super) queues: BTreeMap<String, usize>,
    /// Waiting calls of one caller, in all queues.
    pub(super) waiting_per_caller: usize,
    /// Waiting calls of one queue.
    pub(super) waiting_per_queue: usize,
    pub(super) wait: Duration,
    /// Replaces `wait` in a backlogged queue.
    pub(super) wait_backlogged: Duration,
}

/// The hash of a caller. Callers whose hashes collide share one caller's limits; with 64 bits and a
/// random key that is improbable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallerHash(u64);

#[cfg(test)]
impl CallerHash {
    pub(crate) fn new(digest: u64) -> Self {
        Self(digest)
    }
}

/// Permits one call to run until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    fair_queue: Arc<FairQueue>,
    queue: usize,
    caller: CallerHash,
}

/// No permit became free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The caller has reached its own limit.
    Caller,
    /// The queue has reached its limit.
    Queue,
}

#[derive(Debug)]
struct State {
    limits: QueueLimits,
    /// The index in `queues` of each queue, by name.
    names: HashMap<String, usize>,
    queues: Vec<Queue>,
    callers: HashMap<CallerHash, CallerCounts>,
    last_waiter_id: u64,
}

/// The calls of one caller, in all queues.
#[derive(Debug, Default)]
struct CallerCounts {
    running: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Queue {
    max: usize,
    running: usize,
    /// The largest `running` since `take_peak`.
    peak: usize,
    waiting: usize,
    /// Since when the queue has not been empty.
    waiting_since: Option<Instant>,
    waiters: HashMap<CallerHash, VecDeque<Waiter>>,
    /// The callers in `waiters`, in the order in which they are served.
    order: VecDeque<CallerHash>,
    metrics: QueueMetrics,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    grant: oneshot::Sender<()>,
}

/// The metrics of one queue.
pub(super) struct QueueMetrics {
    pub(super) running: Gauge,
    pub(super) waiting: Gauge,
    pub(super) waited: Histogram,
    /// Indexed by `Busy`.
    pub(super) rejected: [Counter; 2],
}

impl std::fmt::Debug for QueueMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueueMetrics")
    }
}

impl FairQueue {
    pub(super) fn new(limits: QueueLimits, metrics: fn(&str) -> QueueMetrics) -> Self {
        let state = State {
            limits,
            names: HashMap::new(),
            queues: Vec::new(),
            callers: HashMap::new(),
            last_waiter_id: 0,
        };
        Self { state: Mutex::new(state), hasher: RandomState::new(), metrics }
    }

    pub(super) fn hash(&self, caller: impl Hash) -> CallerHash {
        CallerHash(self.hasher.hash_one(caller))
    }

    /// Replaces the limits. Calls that run or wait are not interrupted.
    pub(super) fn set_limits(&self, limits: QueueLimits) {
        let state = &mut *self.state();
        for (name, &queue) in &state.names {
            state.queues[queue].max = limits.running_max(name);
        }
        state.limits = limits;
        state.dispatch();
    }

    /// The most calls that ran at once in one queue since the last call of this function.
    pub(super) fn take_peak(&self) -> usize {
        let state = &mut *self.state();
        let peaks =
            state.queues.iter_mut().map(|queue| std::mem::replace(&mut queue.peak, queue.running));
        peaks.max().unwrap_or(0)
    }

    /// Waits for a permit for a call of this caller in this queue.
    ///
    /// # Errors
    /// When no permit becomes free in time, or too many calls wait already.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        queue: &str,
        caller: CallerHash,
    ) -> Result<Permit, Busy> {
        let name = queue;
        let (waiting, timeout) = {
            let state = &mut *self.state();
            let queue = state.queue(queue, self.metrics);
            if state.has_capacity(queue, caller) {
                state.start(queue, caller);
                return Ok(Permit { fair_queue: Arc::clone(self), queue, caller });
            }
            state.evict_longest(queue, caller)?;
            let (id, granted, timeout) = state.enqueue(queue, caller);
            (Waiting { fair_queue: self, queue, caller, id, granted, is_over: false }, timeout)
        };
        let span = tracing::info_span!("queue", drawbridge.queue.name = name, error.type = Empty);
        let permit = waiting.wait(timeout).instrument(span.clone()).await;
        if permit.is_err() {
            span.record("error.type", "timeout");
        }
        permit
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.fair_queue.state();
        state.finish(self.queue, self.caller);
        state.dispatch();
    }
}

impl QueueLimits {
    /// How many calls of a queue may run at once.
    fn running_max(&self, queue: &str) -> usize {
        self.queues.get(queue).copied().unwrap_or(self.per_queue)
    }
}

impl State {
    fn queue(&mut self, name: &str, metrics: fn(&str) -> QueueMetrics) -> usize {
        if let Some(&queue) = self.names.get(name) {
            return queue;
        }
        self.queues.push(Queue {
            max: self.limits.running_max(name),
            running: 0,
            peak: 0,
            waiting: 0,
            waiting_since: None,
            waiters: HashMap::new(),
            order: VecDeque::new(),
            metrics: metrics(name),
        });
        let queue = self.queues.len() - 1;
        self.names.insert(name.to_owned(), queue);
        queue
    }

    fn is_at_limit(&self, caller: CallerHash) -> bool {
        self.callers.get(&caller).is_some_and(|counts| counts.running >= self.limits.per_caller)
    }

    fn has_capacity(&self, queue: usize, caller: CallerHash) -> bool {
        let queue = &self.queues[queue];
        queue.running < queue.max && !self.is_at_limit(caller)
    }

    fn start(&mut self, queue: usize, caller: CallerHash) {
        self.callers.entry(caller).or_default().running += 1;
        let queue = &mut self.queues[queue];
        queue.running += 1;
        queue.peak = queue.peak.max(queue.running);
        queue.metrics.running.increment(1.0);
    }

    fn finish(&mut self, queue: usize, caller: CallerHash) {
        if let Some(counts) = self.callers.get_mut(&caller) {
            counts.running -= 1;
        }
        self.remove_if_idle(caller);
        let queue = &mut self.queues[queue];
        queue.running -= 1;
        queue.metrics.running.decrement(1.0);
    }

    fn remove_if_idle(&mut self, caller: CallerHash) {
        let counts = self.callers.get(&caller);
        if counts.is_some_and(|counts| counts.running == 0 && counts.waiting == 0) {
            self.callers.remove(&caller);
        }
    }

    /// Makes space for a waiter of this caller. A full queue evicts a waiter of the caller that has
    /// the most of them, unless this caller would then have as many.
    fn evict_longest(&mut self, queue: usize, caller: CallerHash) -> Result<(), Busy> {
        let waiting = self.callers.get(&caller).map_or(0, |counts| counts.waiting);
        if waiting >= self.limits.waiting_per_caller {
            return Err(self.reject(queue, Busy::Caller));
        }
        if self.queues[queue].waiting < self.limits.waiting_per_queue {
            return Ok(());
        }
        let waiters = &self.queues[queue].waiters;
        let own = waiters.get(&caller).map_or(0, VecDeque::len);
        match waiters.iter().max_by_key(|(_, waiters)| waiters.len()) {
            Some((&longest, waiters)) if waiters.len() > own + 1 => {
                if let Some(id) = waiters.back().map(|waiter| waiter.id) {
                    self.remove_waiter(queue, longest, id);
                }
                Ok(())
            }
            _ => Err(self.reject(queue, Busy::Queue)),
        }
    }

    /// Adds a waiter. Returns its id, the receiver of its grant, and how long it may wait.
    fn enqueue(
        &mut self,
        queue: usize,
        caller: CallerHash,
    ) -> (u64, oneshot::Receiver<()>, Duration) {
        let (grant, granted) = oneshot::channel();
        self.last_waiter_id += 1;
        let id = self.last_waiter_id;
        self.callers.entry(caller).or_default().waiting += 1;
        let queue = &mut self.queues[queue];
        queue.waiting += 1;
        queue.metrics.waiting.increment(1.0);
        let since = *queue.waiting_since.get_or_insert_with(Instant::now);
        let waiters = queue.waiters.entry(caller).or_default();
        if waiters.is_empty() {
            queue.order.push_back(caller);
        }
        waiters.push_back(Waiter { id, grant });
        let is_backlogged = since.elapsed() > BACKLOGGED_AFTER;
        let limits = &self.limits;
        (id, granted, if is_backlogged { limits.wait_backlogged } else { limits.wait })
    }

    /// Removes a waiter from its queue. Returns whether it was still there.
    fn remove_waiter(&mut self, queue: usize, caller: CallerHash, id: u64) -> bool {
        let Some(waiters) = self.queues[queue].waiters.get_mut(&caller) else { return false };
        let Some(index) = waiters.iter().position(|waiter| waiter.id == id) else {
            return false;
        };
        waiters.remove(index);
        if waiters.is_empty() {
            self.queues[queue].waiters.remove(&caller);
            self.queues[queue].order.retain(|waiting| *waiting != caller);
        }
        self.count_removed_waiter(queue, caller);
        true
    }

    fn count_removed_waiter(&mut self, queue: usize, caller: CallerHash) {
        if let Some(counts) = self.callers.get_mut(&caller) {
            counts.waiting -= 1;
        }
        self.remove_if_idle(caller);
        let queue = &mut self.queues[queue];
        queue.waiting -= 1;
        queue.metrics.waiting.decrement(1.0);
        if queue.waiting == 0 {
            queue.waiting_since = None;
        }
    }

    /// Grants all permits that are free, in every queue: a caller may wait in several.
    fn dispatch(&mut self) {
        for queue in 0..self.queues.len() {
            while let Some((caller, waiter)) = self.pop_next(queue) {
                self.start(queue, caller);
                self.count_removed_waiter(queue, caller);
                // The receiver lives until its waiter has left the queue.
                let _ = waiter.grant.send(());
            }
        }
    }

    /// Removes the waiter that is to run next, if one may run.
    fn pop_next(&mut self, queue: usize) -> Option<(CallerHash, Waiter)> {
        let (running, max) = (self.queues[queue].running, self.queues[queue].max);
        if running >= max {
            return None;
        }
        let index =
            self.queues[queue].order.iter().position(|caller| !self.is_at_limit(*caller))?;
        let queue = &mut self.queues[queue];
        let caller = queue.order.remove(index)?;
        let waiters = queue.waiters.get_mut(&caller)?;
        let waiter = waiters.pop_front()?;
        if waiters.is_empty() {
            queue.waiters.remove(&caller);
        } else {
            queue.order.push_back(caller);
        }
        Some((caller, waiter))
    }

    fn reject(&self, queue: usize, busy: Busy) -> Busy {
        self.queues[queue].metrics.rejected[busy as usize].increment(1);
        busy
    }
}

#[cfg(test)]
mod tests;
