//! The limits of a run: work, time and stack. A run that exceeds one is stopped by unwinding.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

/// The stack of a thread that runs programs, in bytes. Unused stack takes no memory.
pub(in crate::traffic::transform) const STACK_BYTES: usize = 256 * 1024 * 1024;
/// The stack that a thread must have left for a short run, in bytes.
pub(super) const SHORT_STACK_BYTES: usize = 1024 * 1024;
/// The bytes of text that cost one unit.
const BYTES_PER_UNIT: usize = 16;
/// How many units pass between two looks at the clock.
const CLOCK_EVERY: u64 = 1024;

/// The limits of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunLimits {
    /// In units: a step of evaluation, a value created, walked or copied, or `BYTES_PER_UNIT` bytes
    /// of text.
    work: u64,
    time: Duration,
    /// The stack for evaluation. The rest is for recursive drops, of which each step needs little.
    evaluation_bytes: usize,
    /// The largest input and output, in bytes of JSON text.
    pub(super) value_bytes: usize,
}

/// The limits of any run, on a thread with a stack of [`STACK_BYTES`].
pub(super) const FULL: RunLimits = RunLimits {
    work: 400_000,
    time: Duration::from_secs(1),
    evaluation_bytes: 16 * 1024 * 1024,
    value_bytes: 1024 * 1024,
};

/// The limits of a short run, on a thread with [`SHORT_STACK_BYTES`] left. For such a run, a switch
/// to another thread would take longer than the run.
pub(super) const SHORT: RunLimits = RunLimits {
    work: 2000,
    time: Duration::from_millis(1),
    evaluation_bytes: 128 * 1024,
    value_bytes: 16 * 1024,
};

/// The limit that a run has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitExceeded {
    #[error("it exceeded the work limit of a program")]
    Work,
    #[error("it exceeded the time limit of a program")]
    Time,
    #[error("it exceeded the depth limit of a program")]
    Depth,
}

/// Why a run was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunAborted {
    Limit(LimitExceeded),
    /// The interpreter panicked.
    Panic,
}

thread_local! {
    static REMAINING_UNITS: Cell<u64> = const { Cell::new(u64::MAX) };
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The lowest stack address that evaluation may reach.
    static STACK_LIMIT: Cell<usize> = const { Cell::new(0) };
}

/// Runs within limits.
pub(super) fn within<T>(limits: &RunLimits, run: impl FnOnce() -> T) -> Result<T, RunAborted> {
    REMAINING_UNITS.set(limits.work);
    DEADLINE.set(Some(Instant::now() + limits.time));
    STACK_LIMIT.set(stack_address().saturating_sub(limits.evaluation_bytes));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    REMAINING_UNITS.set(u64::MAX);
    DEADLINE.set(None);
    STACK_LIMIT.set(0);
    outcome.map_err(|panic: Box<dyn Any + Send>| {
        panic.downcast().map_or(RunAborted::Panic, |limit| RunAborted::Limit(*limit))
    })
}

/// Charges one step of evaluation.
pub(super) fn step() {
    if stack_address() < STACK_LIMIT.get() {
        stop(LimitExceeded::Depth);
    }
    charge(1);
}

/// Charges work on values.
pub(super) fn charge(units: usize) {
    let before = REMAINING_UNITS.get();
    let Some(remaining) = before.checked_sub(units as u64) else { stop(LimitExceeded::Work) };
    REMAINING_UNITS.set(remaining);
    if before / CLOCK_EVERY != remaining / CLOCK_EVERY
        && DEADLINE.get().is_some_and(|deadline| Instant::now() > deadline)
    {
        stop(LimitExceeded::Time);
    }
}

/// Charges work on bytes of text.
pub(super) fn charge_bytes(bytes: usize) {
    charge(1 + bytes / BYTES_PER_UNIT);
}

/// Stops the run, without calling the panic hook.
pub(super) fn stop(limit: LimitExceeded) -> ! {
    resume_unwind(Box::new(limit))
}

/// The current stack address.
#[inline(never)]
fn stack_address() -> usize {
    let marker = 0_u8;
    std::ptr::from_ref(&marker).addr()
}
