//! What became of the telemetry that was to be exported.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use tracing::dispatcher::{Dispatch, WeakDispatch};

use crate::metric::{Counter, Metric};

/// Counts what a collector does not take, and logs when it begins and when it ends.
#[derive(Debug)]
pub(super) struct ExportState {
    signal: &'static str,
    is_failing: AtomicBool,
    queue_full: Counter,
    export_failed: Counter,
    rejected: Counter,
    /// The subscriber of the service: exporters have their own threads, and an event has its spans
    /// there.
    dispatch: OnceLock<WeakDispatch>,
}

impl ExportState {
    /// Counts with the current recorder.
    pub(super) fn new(signal: &'static str, lost: &Metric<Counter, 1>) -> Self {
        Self {
            signal,
            is_failing: AtomicBool::new(false),
            queue_full: lost.with(["queue_full".into()]),
            export_failed: lost.with(["export_failed".into()]),
            rejected: lost.with(["rejected".into()]),
            dispatch: OnceLock::new(),
        }
    }

    /// Logs to this subscriber from now on.
    pub(super) fn log_to(&self, dispatch: &Dispatch) {
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    /// The subscriber, while the telemetry exists.
    pub(super) fn dispatch(&self) -> Option<Dispatch> {
        self.dispatch.get().and_then(WeakDispatch::upgrade)
    }

    /// One was dropped, because too many waited.
    pub(super) fn queue_was_full(&self) {
        self.queue_full.increment(1);
    }

    /// An export of `count` ended: with how many the collector rejected, or with an error.
    pub(super) fn ended(&self, count: u64, result: &Result<u64, String>) {
        match result {
            Ok(rejected) => self.rejected.increment(*rejected),
            Err(_) => self.export_failed.increment(count),
        }
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        let Some(dispatch) = self.dispatch() else { return };
        let signal = self.signal;
        tracing::dispatcher::with_default(&dispatch, || match result {
            Err(error) if !was_failing => {
                tracing::warn!(signal, error, "telemetry cannot be exported; it is counted");
            }
            Ok(_) if was_failing => tracing::info!(signal, "telemetry is exported again"),
            _ => {}
        });
    }
}
