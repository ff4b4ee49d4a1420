//! What a run may use: work, time and stack. Whoever uses more is stopped where it is, by unwinding.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

/// The stack of a thread that runs programs, in bytes. What is not used takes no memory.
pub(in crate::transform) const STACK_BYTES: usize = 256 * 1024 * 1024;
/// How much of it evaluation may take. The rest is for what is dropped recursively, of which each step leaves little.
const EVALUATION_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A unit is a step of evaluation, a value that is made, walked or copied, or so many bytes of text.
const WORK_MAX: u64 = 400_000;
const BYTES_PER_UNIT: usize = 16;
const TIME_MAX: Duration = Duration::from_secs(1);
/// How often the clock is looked at, in units.
const LOOK_EVERY: u64 = 1024;

/// What a run has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Spent {
    #[error("it does more work than a program may")]
    Work,
    #[error("it takes longer than a program may")]
    Time,
    #[error("it goes deeper than a program may")]
    Depth,
}

/// Why a run ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Spent(Spent),
    /// The interpreter panicked.
    Broken,
}

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
    static BOTTOM: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs with these limits, on a thread with a stack of [`STACK_BYTES`].
pub(super) fn within<T>(run: impl FnOnce() -> T) -> Result<T, Ended> {
    LEFT.set(WORK_MAX);
    UNTIL.set(Some(Instant::now() + TIME_MAX));
    BOTTOM.set(Some(here()));
    let ran = catch_unwind(AssertUnwindSafe(run));
    LEFT.set(u64::MAX);
    UNTIL.set(None);
    BOTTOM.set(None);
    ran.map_err(|panic: Box<dyn Any + Send>| {
        panic.downcast().map_or(Ended::Broken, |spent| Ended::Spent(*spent))
    })
}

/// One step of evaluation.
pub(super) fn step() {
    if BOTTOM.get().is_some_and(|bottom| bottom.abs_diff(here()) > EVALUATION_BYTES_MAX) {
        stop(Spent::Depth);
    }
    charge(1);
}

/// Work on so many values.
pub(super) fn charge(units: usize) {
    let before = LEFT.get();
    let Some(left) = before.checked_sub(units as u64) else { stop(Spent::Work) };
    LEFT.set(left);
    if before / LOOK_EVERY != left / LOOK_EVERY && UNTIL.get().is_some_and(|until| Instant::now() > until) {
        stop(Spent::Time);
    }
}

/// Work on so many bytes of text.
pub(super) fn charge_bytes(bytes: usize) {
    charge(1 + bytes / BYTES_PER_UNIT);
}

/// Ends the run. No panic hook hears of it.
pub(super) fn stop(spent: Spent) -> ! {
    resume_unwind(Box::new(spent))
}

/// Where the stack is now.
#[inline(never)]
fn here() -> usize {
    let marker = 0_u8;
    std::ptr::from_ref(&marker).addr()
}
