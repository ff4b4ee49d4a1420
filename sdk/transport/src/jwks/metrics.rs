//! The metrics of one key set.

use std::time::{Instant, SystemTime};

use drawbridge_runtime::metric::{Counter, Gauge};

use crate::metrics::{JWKS_FETCHED, JWKS_FETCHES_FAILED, JWKS_FRESH_UNTIL};

/// How old the keys of a source are.
#[derive(Debug)]
pub(super) struct JwksMetrics {
    fetched: Gauge,
    fresh_until: Gauge,
    failed: Counter,
}

impl JwksMetrics {
    pub(super) fn new(source: String) -> Self {
        Self {
            fetched: JWKS_FETCHED.with([source.clone().into()]),
            fresh_until: JWKS_FRESH_UNTIL.with([source.clone().into()]),
            failed: JWKS_FETCHES_FAILED.with([source.into()]),
        }
    }

    /// A fetch has ended.
    pub(super) fn record(&self, is_failed: bool, fresh_until: Option<Instant>) {
        if is_failed {
            return self.failed.increment(1);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let fresh = fresh_until.map(|until| until.saturating_duration_since(Instant::now()));
        self.fetched.set(now.as_secs_f64());
        self.fresh_until.set((now + fresh.unwrap_or_default()).as_secs_f64());
    }
}

impl Drop for JwksMetrics {
    fn drop(&mut self) {
        // A metric cannot be removed, and what is not needed must not raise an alarm.
        self.fetched.set(f64::NAN);
        self.fresh_until.set(f64::NAN);
    }
}
