//! How long a request to a source may take.

use std::time::Duration;

/// The longest that connecting may take, and a call with all its retries.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that one attempt may take: a second one still fits into the call.
pub(super) const TRY_TIMEOUT: Duration = Duration::from_millis(2400);
