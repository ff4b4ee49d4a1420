//! Times in seconds since 1970.

use std::time::{Duration, Instant, SystemTime};

/// The current time.
pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Converts an instant to seconds since 1970.
pub(crate) fn seconds(time: Instant) -> u64 {
    let left = time.saturating_duration_since(Instant::now());
    seconds_since_1970().saturating_add(left.as_secs())
}

/// Converts seconds since 1970 to an instant. `None` if it has passed.
pub(crate) fn instant(seconds: u64) -> Option<Instant> {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    let left = time.duration_since(SystemTime::now()).ok()?;
    Instant::now().checked_add(left)
}
