//! How many requests are in progress at once, and how many may be.
//!
//! What tells that this replica no longer keeps up is how late its runtime wakes a task that has slept: how
//! long a service takes to answer says nothing of the edge. The number of requests falls by an eighth as long as
//! every one of some wake-ups was late (a standing queue, as CoDel has it, RFC 8289), and rises by an
//! eighth when not.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Rules;

/// A wake-up that is later than this is late.
const LATE: Duration = Duration::from_millis(10);
const PROBE: Duration = Duration::from_millis(10);
const PROBES: usize = 8;
const WINDOW: Duration = Duration::from_millis(100);

/// The requests that are in progress on this replica.
#[derive(Debug)]
pub(crate) struct Requests {
    in_progress: AtomicUsize,
    /// The most that were, since it was last looked at.
    peak: AtomicUsize,
    /// How many may be now.
    limit: AtomicUsize,
    bounds: Mutex<Bounds>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    min: usize,
    max: usize,
}

/// A request in progress, as long as this lives.
#[derive(Debug)]
pub(crate) struct InProgress(Arc<Requests>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Requests {
    fn default() -> Self {
        let bounds = Bounds::of(&Rules::default());
        Self {
            in_progress: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            limit: AtomicUsize::new(bounds.max),
            bounds: Mutex::new(bounds),
        }
    }
}

impl Requests {
    /// These bounds hold from now on.
    pub(crate) fn set(&self, rules: &Rules) {
        let bounds = Bounds::of(rules);
        let before =
            std::mem::replace(&mut *self.bounds.lock().unwrap_or_else(PoisonError::into_inner), bounds);
        if before != bounds {
            self.limit.store(bounds.max, Ordering::Relaxed);
        }
    }

    /// Begins a request, unless too many are in progress.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<InProgress> {
        let now = self.in_progress.fetch_add(1, Ordering::Relaxed) + 1;
        let begun = InProgress(Arc::clone(self));
        self.peak.fetch_max(now, Ordering::Relaxed);
        (now <= self.limit.load(Ordering::Relaxed)).then_some(begun)
    }

    fn adjust(&self, late_by: Duration) {
        let peak = self.peak.swap(self.in_progress.load(Ordering::Relaxed), Ordering::Relaxed);
        let bounds = *self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.limit.load(Ordering::Relaxed);
        let next = bounds.next(limit, peak, late_by);
        if next == limit {
            return;
        }
        self.limit.store(next, Ordering::Relaxed);
        metrics::gauge!("edge_requests_limit").set(f64::from(u32::try_from(next).unwrap_or(u32::MAX)));
        if limit == bounds.max {
            tracing::warn!(
                limit = next,
                ?late_by,
                "the edge does not keep up; it takes fewer requests at once"
            );
        } else if next == bounds.max {
            tracing::info!(limit = next, "the edge keeps up again");
        }
    }
}

impl Bounds {
    fn of(rules: &Rules) -> Self {
        Self { min: rules.requests_min, max: rules.requests_max }
    }

    /// How many requests may be in progress after a time in which `peak` were, and no wake-up was less late.
    fn next(self, limit: usize, peak: usize, late_by: Duration) -> usize {
        let next = if late_by > LATE {
            let held = limit.min(peak.max(self.min));
            held - held / 8
        } else {
            limit + limit / 8 + 1
        };
        next.clamp(self.min, self.max)
    }
}

/// Looks whether the replica keeps up, until it stops.
pub(crate) async fn watch(requests: Arc<Requests>, stopping: CancellationToken) {
    let watching = async {
        loop {
            let (min, max) = {
                let bounds = requests.bounds.lock().unwrap_or_else(PoisonError::into_inner);
                (bounds.min, bounds.max)
            };
            // With so few requests there is nothing to refuse, however slow the machine.
            let idle = requests.peak.load(Ordering::Relaxed) < min;
            if idle && requests.limit.load(Ordering::Relaxed) == max {
                tokio::time::sleep(WINDOW).await;
                continue;
            }
            let mut late_by = Duration::MAX;
            for _ in 0..PROBES {
                let began = Instant::now();
                tokio::time::sleep(PROBE).await;
                late_by = late_by.min(began.elapsed().saturating_sub(PROBE));
            }
            requests.adjust(late_by);
        }
    };
    stopping.run_until_cancelled(watching).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 16, max: 1000 };
    const ON_TIME: Duration = Duration::from_millis(2);
    const TOO_LATE: Duration = Duration::from_millis(30);

    #[test]
    fn what_lags_takes_fewer_at_once_until_it_keeps_up_and_never_too_few() {
        let mut limit = BOUNDS.max;
        // It falls from what was in progress, not from what might have been.
        limit = BOUNDS.next(limit, 200, TOO_LATE);
        assert_eq!(limit, 175);
        for _ in 0..100 {
            limit = BOUNDS.next(limit, limit, TOO_LATE);
        }
        assert_eq!(limit, BOUNDS.min);
        limit = BOUNDS.next(limit, limit, ON_TIME);
        assert_eq!(limit, 19);
        for _ in 0..100 {
            limit = BOUNDS.next(limit, 0, ON_TIME);
        }
        assert_eq!(limit, BOUNDS.max);
    }

    #[test]
    fn a_request_that_ends_makes_room() {
        let requests = Arc::new(Requests::default());
        requests.set(&Rules { requests_min: 1, requests_max: 2, ..Rules::default() });
        let first = requests.begin();
        let second = requests.begin();
        assert!(first.is_some() && second.is_some() && requests.begin().is_none());
        drop(first);
        assert!(requests.begin().is_some());
    }
}
