//! Responses in memory: how many bytes of them clients have not read yet, per caller and in total.
//!
//! The size of a response is known only when its call has finished, and a finished response is
//! never discarded. So a caller with too many unread bytes is rejected before a call begins.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;

use super::Budget;
use crate::{metrics::RESPONSES_UNREAD, refusal::Refusal, traffic::queue::CallerHash};

/// Responses up to this size, in bytes, are not counted.
const UNCOUNTED_BYTES_MAX: usize = 64 * 1024;
/// How long a request waits for its caller to read earlier responses.
const WAIT: Duration = Duration::from_secs(1);

/// The memory of unread responses.
#[derive(Debug)]
pub(crate) struct ResponseBudget {
    bytes_max: usize,
    budget: Budget,
    /// The unread bytes of all callers.
    bytes: AtomicUsize,
}

/// The budget of one caller.
#[derive(Clone, Debug)]
pub(crate) struct CallerBudget {
    responses: Arc<ResponseBudget>,
    caller: CallerHash,
}

/// A response that its client has not read. Its bytes are released on drop.
#[derive(Debug)]
pub(crate) struct UnreadResponse {
    budget: CallerBudget,
    bytes: usize,
}

impl ResponseBudget {
    /// A budget of this many bytes, of which one caller may use a quarter.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, budget: Budget::default(), bytes: AtomicUsize::new(0) }
    }

    pub(crate) fn for_caller(self: &Arc<Self>, caller: CallerHash) -> CallerBudget {
        CallerBudget { responses: Arc::clone(self), caller }
    }

    /// Admits a request unless its caller has too many unread bytes: a quarter of the budget or,
    /// once the budget is exhausted, any. A caller without unread responses is always admitted.
    pub(crate) async fn admit(&self, caller: CallerHash) -> Result<(), Refusal> {
        if self.has_capacity(caller) {
            return Ok(());
        }
        let waiting = async {
            loop {
                let released = self.budget.released.notified();
                if self.has_capacity(caller) {
                    return;
                }
                released.await;
            }
        };
        timeout(WAIT, waiting).await.map_err(|_| Refusal::ResponsesUnread)
    }

    fn has_capacity(&self, caller: CallerHash) -> bool {
        let quarter = self.bytes_max / 4;
        // INVARIANT: no caller has more than the total. While the total is small, no lock is
        // needed.
        self.bytes.load(Ordering::Relaxed) < quarter
            || self
                .budget
                .take(caller, 0, |all, own| own == 0 || own < quarter && all < self.bytes_max)
    }
}

impl CallerBudget {
    /// Charges a response of this size, unless it is too small to count.
    pub(crate) fn charge(&self, bytes: usize) -> Option<Arc<UnreadResponse>> {
        if bytes <= UNCOUNTED_BYTES_MAX {
            return None;
        }
        let Self { responses, caller } = self;
        responses.budget.take(*caller, bytes, |_, _| true);
        responses.bytes.fetch_add(bytes, Ordering::Relaxed);
        RESPONSES_UNREAD.get().increment(size(bytes));
        Some(Arc::new(UnreadResponse { budget: self.clone(), bytes }))
    }
}

impl UnreadResponse {
    /// Bytes that count as unread until the server has sent or dropped them.
    pub(crate) fn track(unread: Option<Arc<Self>>, bytes: Bytes) -> Bytes {
        match unread {
            Some(unread) => Bytes::from_owner(Tracked { bytes, _unread: unread }),
            None => bytes,
        }
    }
}

impl Drop for UnreadResponse {
    fn drop(&mut self) {
        let CallerBudget { responses, caller } = &self.budget;
        RESPONSES_UNREAD.get().decrement(size(self.bytes));
        responses.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        responses.budget.release(*caller, self.bytes);
    }
}

struct Tracked {
    bytes: Bytes,
    _unread: Arc<UnreadResponse>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn size(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test]
    async fn a_caller_with_a_quarter_of_the_budget_unread_is_rejected_and_others_are_admitted() {
        let budget = Arc::new(ResponseBudget::new(8 * MIB));
        let callers = [1, 2, 3, 4, 5, 6].map(CallerHash::new);
        let [alice, bob, ..] = callers;
        let response = |caller| {
            let unread = budget.for_caller(caller).charge(MIB);
            UnreadResponse::track(unread, Bytes::from(vec![b'x'; MIB]))
        };
        assert!(
            budget.for_caller(alice).charge(UNCOUNTED_BYTES_MAX).is_none(),
            "a small response is counted"
        );
        let first = response(alice);
        assert!(budget.has_capacity(alice));
        let part = first.slice(MIB - 1..);
        let second = response(alice);
        assert!(!budget.has_capacity(alice));
        assert!(budget.has_capacity(bob));
        drop(first);
        assert!(!budget.has_capacity(alice), "the last byte is unread");
        let mut waiting = Box::pin(budget.admit(alice));
        assert!((&mut waiting).now_or_never().is_none());
        drop(part);
        assert!(waiting.await.is_ok());

        // Once the budget is exhausted, only callers with unread responses wait.
        let all: Vec<_> = callers[1..5]
            .iter()
            .flat_map(|caller| [response(*caller), response(*caller)])
            .collect();
        assert!(!budget.has_capacity(alice));
        assert!(budget.has_capacity(callers[5]));
        drop((all, second));
        assert_eq!((budget.budget.taken(), budget.bytes.load(Ordering::Relaxed)), ((0, 0), 0));
    }
}
