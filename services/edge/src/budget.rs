//! Memory that callers share: how much each of them and all together have taken.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::traffic::queue::CallerHash;

pub use self::body::BodyLimits;
pub(crate) use self::{
    body::{BodyBudget, BodyPermit, discard},
    response::{CallerBudget, ResponseBudget, UnreadResponse},
};

mod body;
mod response;

#[derive(Debug, Default)]
struct Budget {
    used: Mutex<Used>,
    /// Notified when memory was released.
    released: Notify,
}

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    callers: HashMap<CallerHash, usize>,
}

impl Budget {
    /// Takes memory if `fits` accepts what would then be taken: in total, and by this caller.
    fn take(
        &self,
        caller: CallerHash,
        bytes: usize,
        fits: impl FnOnce(usize, usize) -> bool,
    ) -> bool {
        let used = &mut *self.used();
        let own = used.callers.get(&caller).copied().unwrap_or_default() + bytes;
        if !fits(used.bytes + bytes, own) {
            return false;
        }
        if own > 0 {
            used.callers.insert(caller, own);
        }
        used.bytes += bytes;
        true
    }

    fn release(&self, caller: CallerHash, bytes: usize) {
        let used = &mut *self.used();
        used.bytes -= bytes;
        if let Some(own) = used.callers.get_mut(&caller) {
            *own -= bytes;
            if *own == 0 {
                used.callers.remove(&caller);
            }
        }
        self.released.notify_waiters();
    }

    /// How much is taken in total, and by how many callers.
    #[cfg(test)]
    fn taken(&self) -> (usize, usize) {
        let used = self.used();
        (used.bytes, used.callers.len())
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
