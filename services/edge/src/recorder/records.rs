//! The records of all requests, and how many of them there may be.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_audit::AuditLog;

/// The most records per second of requests without an authenticated caller. Further ones are
/// counted in the next such record: a client without a token may not fill the disk.
const ANONYMOUS_PER_SECOND_MAX: u32 = 100;

/// The records of all requests.
#[derive(Debug)]
pub(crate) struct CallRecords {
    pub(super) audit: AuditLog,
    anonymous: Mutex<AnonymousRecords>,
}

/// How many records of requests without an authenticated caller were written.
#[derive(Debug)]
struct AnonymousRecords {
    since: Instant,
    written: u32,
    suppressed: u64,
}

impl CallRecords {
    pub(crate) fn new(audit: AuditLog) -> Arc<Self> {
        let anonymous = AnonymousRecords { since: Instant::now(), written: 0, suppressed: 0 };
        Arc::new(Self { audit, anonymous: anonymous.into() })
    }

    /// Whether a request without an authenticated caller may be recorded: then how many were not
    /// since the last one.
    pub(super) fn permit_anonymous(&self, now: Instant) -> Option<u64> {
        let mut records = self.anonymous.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(records.since) >= Duration::from_secs(1) {
            (records.since, records.written) = (now, 0);
        }
        if records.written == ANONYMOUS_PER_SECOND_MAX {
            records.suppressed += 1;
            return None;
        }
        records.written += 1;
        Some(mem::take(&mut records.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_unauthenticated_callers_beyond_the_limit_are_counted_in_the_next_record() {
        let records = CallRecords::new(AuditLog::off().unwrap());
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        for _ in 0..ANONYMOUS_PER_SECOND_MAX {
            assert_eq!(records.permit_anonymous(start), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(records.permit_anonymous(start), None);
        }
        assert_eq!(records.permit_anonymous(later), Some(3));
        assert_eq!(records.permit_anonymous(later), Some(0));
    }
}
