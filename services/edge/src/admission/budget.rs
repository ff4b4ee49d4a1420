//! Memory that callers share: how much is taken of it, by each and in all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::traffic::queue::Caller;

#[derive(Debug, Default)]
pub(super) struct Budget {
    used: Mutex<Used>,
    /// Notified when something was given back.
    pub(super) released: Notify,
}

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    callers: HashMap<Caller, usize>,
}

impl Budget {
    /// Takes this much, if what would be taken then fits: in all, and by the caller.
    pub(super) fn take(
        &self,
        caller: Caller,
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

    pub(super) fn give_back(&self, caller: Caller, bytes: usize) {
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

    /// How much is taken in all, and by how many.
    #[cfg(test)]
    pub(super) fn taken(&self) -> (usize, usize) {
        let used = self.used();
        (used.bytes, used.callers.len())
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
