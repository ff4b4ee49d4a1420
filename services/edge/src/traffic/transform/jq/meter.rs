//! What a run may use: work, time and stack. Whoever uses more is stopped where it is, by unwinding.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

/// The stack of a thread that runs programs, in bytes. What is not used takes no memory.
pub(in crate::traffic::transform) const STACK_BYTES: usize = 256 * 1024 * 1024;
/// What a thread must have left of its stack for a short run, in bytes.
pub(super) const BRIEF_STACK_BYTES: usize = 1024 * 1024;
/// Text that is worth a unit.
const BYTES_PER_UNIT: usize = 16;
/// How often the clock is looked at, in units.
const LOOK_EVERY: u64 = 1024;

/// What a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// A unit is a step of evaluation, a value that is made, walked or copied, or so many bytes of text.
    work: u64,
    time: Duration,
    /// How much of the stack evaluation may take. The rest is for what is dropped recursively, of which each step leaves
    /// little.
    evaluation_bytes: usize,
    /// How large what goes in and comes out may be, in bytes of its text.
    pub(super) value_bytes: usize,
}

/// Of any run, on a thread with a stack of [`STACK_BYTES`].
pub(super) const WHOLE: Allowance = Allowance {
    work: 400_000,
    time: Duration::from_secs(1),
    evaluation_bytes: 16 * 1024 * 1024,
    value_bytes: 1024 * 1024,
};

/// Of a short run, on a thread that has [`BRIEF_STACK_BYTES`] left. The way to another thread and back would be longer
/// than the run.
pub(super) const SHORT: Allowance = Allowance {
    work: 2000,
    time: Duration::from_millis(1),
    evaluation_bytes: 128 * 1024,
    value_bytes: 16 * 1024,
};

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
    /// How far down the stack may go.
    static DEEPEST: Cell<usize> = const { Cell::new(0) };
}

/// Runs within an allowance.
pub(super) fn within<T>(allowance: &Allowance, run: impl FnOnce() -> T) -> Result<T, Ended> {
    LEFT.set(allowance.work);
    UNTIL.set(Some(Instant::now() + allowance.time));
    DEEPEST.set(here().saturating_sub(allowance.evaluation_bytes));
    let ran = catch_unwind(AssertUnwindSafe(run));
    LEFT.set(u64::MAX);
    UNTIL.set(None);
    DEEPEST.set(0);
    ran.map_err(|panic: Box<dyn Any + Send>| {
        panic.downcast().map_or(Ended::Broken, |spent| Ended::Spent(*spent))
    })
}

/// One step of evaluation.
pub(super) fn step() {
    if here() < DEEPEST.get() {
        stop(Spent::Depth);
    }
    charge(1);
}

/// Work on so many values.
pub(super) fn charge(units: usize) {
    let before = LEFT.get();
    let Some(left) = before.checked_sub(units as u64) else { stop(Spent::Work) };
    LEFT.set(left);
    if before / LOOK_EVERY != left / LOOK_EVERY
        && UNTIL.get().is_some_and(|until| Instant::now() > until)
    {
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
