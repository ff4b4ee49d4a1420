//! Answers in memory: how many bytes of them this replica holds that their clients have not read, of one caller and in
//! all.
//!
//! How large an answer is shows when its call has ended, and then it is never thrown away. So a caller who leaves too much
//! unread is refused before a call begins.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use metrics::gauge;
use tokio::time::timeout;

use super::budget::Budget;
use crate::{refusal::Refusal, traffic::queue::Caller};

/// An answer beyond this is a large one, in bytes. Others are not counted.
const LARGE_BYTES: usize = 64 * 1024;
/// How long a request waits for its caller to read earlier answers.
const WAIT: Duration = Duration::from_secs(1);

/// The memory of large answers.
#[derive(Debug)]
pub(crate) struct AnswerBudget {
    bytes_max: usize,
    budget: Budget,
    /// What is taken in all.
    bytes: AtomicUsize,
}

/// What one caller has of it.
#[derive(Clone, Debug)]
pub(crate) struct CallerBudget {
    answers: Arc<AnswerBudget>,
    caller: Caller,
}

/// A large answer that its client has not read, as long as this lives.
#[derive(Debug)]
pub(crate) struct Unsent {
    of: CallerBudget,
    bytes: usize,
}

impl AnswerBudget {
    /// A budget of so many bytes. One caller has a quarter of it.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, budget: Budget::default(), bytes: AtomicUsize::new(0) }
    }

    pub(super) fn of(self: &Arc<Self>, caller: Caller) -> CallerBudget {
        CallerBudget { answers: Arc::clone(self), caller }
    }

    /// Lets a request begin, unless its caller leaves too much unread: a quarter of all, or anything when there is no
    /// more. Whoever leaves nothing unread always may.
    pub(super) async fn admit(&self, caller: Caller) -> Result<(), Refusal> {
        if self.may_begin(caller) {
            return Ok(());
        }
        let waiting = async {
            loop {
                let released = self.budget.released.notified();
                if self.may_begin(caller) {
                    return;
                }
                released.await;
            }
        };
        timeout(WAIT, waiting).await.map_err(|_| Refusal::Unread)
    }

    fn may_begin(&self, caller: Caller) -> bool {
        let quarter = self.bytes_max / 4;
        // INVARIANT: nobody has more than there is in all. While that is little, nothing is locked.
        self.bytes.load(Ordering::Relaxed) < quarter
            || self
                .budget
                .take(caller, 0, |all, own| own == 0 || own < quarter && all < self.bytes_max)
    }
}

impl CallerBudget {
    /// Charges an answer of this size, if it is a large one.
    pub(crate) fn charge(&self, bytes: usize) -> Option<Arc<Unsent>> {
        if bytes <= LARGE_BYTES {
            return None;
        }
        let Self { answers, caller } = self;
        answers.budget.take(*caller, bytes, |_, _| true);
        answers.bytes.fetch_add(bytes, Ordering::Relaxed);
        gauge!("edge_answers_unread_bytes").increment(size(bytes));
        Some(Arc::new(Unsent { of: self.clone(), bytes }))
    }
}

impl Unsent {
    /// Bytes that count as unread until the server has sent them, or has let go of them.
    pub(crate) fn bytes(unsent: Option<Arc<Self>>, bytes: Bytes) -> Bytes {
        match unsent {
            Some(unsent) => Bytes::from_owner(Charged { bytes, _unsent: unsent }),
            None => bytes,
        }
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        let CallerBudget { answers, caller } = &self.of;
        gauge!("edge_answers_unread_bytes").decrement(size(self.bytes));
        answers.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        answers.budget.give_back(*caller, self.bytes);
    }
}

struct Charged {
    bytes: Bytes,
    _unsent: Arc<Unsent>,
}

impl AsRef<[u8]> for Charged {
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
    async fn a_caller_who_leaves_a_quarter_unread_begins_nothing_and_others_do() {
        let budget = Arc::new(AnswerBudget::new(8 * MIB));
        let callers = [1, 2, 3, 4, 5, 6].map(Caller::new);
        let [alice, bob, ..] = callers;
        let answer = |caller| {
            let unsent = budget.of(caller).charge(MIB);
            Unsent::bytes(unsent, Bytes::from(vec![b'x'; MIB]))
        };
        assert!(budget.of(alice).charge(LARGE_BYTES).is_none(), "small answers are not counted");
        let first = answer(alice);
        assert!(budget.may_begin(alice));
        let part = first.slice(MIB - 1..);
        let second = answer(alice);
        assert!(!budget.may_begin(alice));
        assert!(budget.may_begin(bob));
        drop(first);
        assert!(!budget.may_begin(alice), "the last byte is not sent yet");
        let mut waiting = Box::pin(budget.admit(alice));
        assert!((&mut waiting).now_or_never().is_none());
        drop(part);
        assert!(waiting.await.is_ok());

        // When there is no more, whoever has something unread waits, and nobody else does.
        let all: Vec<_> =
            callers[1..5].iter().flat_map(|caller| [answer(*caller), answer(*caller)]).collect();
        assert!(!budget.may_begin(alice));
        assert!(budget.may_begin(callers[5]));
        drop((all, second));
        assert_eq!((budget.budget.taken(), budget.bytes.load(Ordering::Relaxed)), ((0, 0), 0));
    }
}
