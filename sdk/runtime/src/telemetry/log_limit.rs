//! Bounds how often an event is logged that happens in many calls for one reason.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often one reason is logged at most.
const INTERVAL: Duration = Duration::from_secs(10);
/// How many reasons are distinguished. Reasons are words of the code; this bounds a mistake.
const REASONS_MAX: usize = 64;

/// Permits one line per reason and ten seconds.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<HashMap<&'static str, Reason>>);

#[derive(Debug)]
struct Reason {
    logged: Instant,
    suppressed: u64,
}

impl LogLimit {
    /// Whether to log an event with this reason now: then how many were not logged since the last
    /// line.
    pub fn permit(&self, reason: &'static str) -> Option<u64> {
        self.permit_at(reason, Instant::now())
    }

    fn permit_at(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = reasons.len() >= REASONS_MAX;
        match reasons.get_mut(reason) {
            Some(Reason { logged, suppressed }) if now.duration_since(*logged) < INTERVAL => {
                *suppressed += 1;
                None
            }
            Some(known) => {
                known.logged = now;
                Some(std::mem::take(&mut known.suppressed))
            }
            None if !is_full => {
                reasons.insert(reason, Reason { logged: now, suppressed: 0 });
                Some(0)
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_logged_once_per_interval_with_the_number_of_the_others() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.permit_at("expired", start), Some(0));
        assert_eq!(limit.permit_at("expired", start), None);
        assert_eq!(limit.permit_at("audience", start), Some(0), "another reason");
        assert_eq!(limit.permit_at("expired", start), None);
        assert_eq!(limit.permit_at("expired", start + INTERVAL), Some(2));
        assert_eq!(limit.permit_at("expired", start + 2 * INTERVAL), Some(0));
    }
}
