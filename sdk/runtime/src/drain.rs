//! How long a service takes to stop.

use std::time::Duration;

/// How long calls have to send their errors once the drain timeout has passed.
pub(crate) const OVERDUE_GRACE: Duration = Duration::from_secs(1);
/// How long background tasks may take to end, and resources to be released, once calls have ended.
pub const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a service drains when it is asked to stop.
///
/// It takes at most the sum of both, a second for the errors of calls that were cut, five seconds
/// to release resources, and two to export the last spans: 30 seconds with the defaults.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Shutdown")]
pub struct DrainConfig {
    /// How long the service still accepts requests after it has become not ready, in milliseconds:
    /// longer than a load balancer needs to notice. 0 if none polls it.
    #[arg(long, value_name = "MS", default_value_t = 7_000)]
    pub drain_delay_ms: u64,

    /// How long calls in flight may take to end after that, in milliseconds. Then they fail with a
    /// retryable error.
    #[arg(long, value_name = "MS", default_value_t = 15_000)]
    pub drain_timeout_ms: u64,
}

impl DrainConfig {
    /// For a service in one process with its callers: no load balancer polls it.
    pub const IN_PROCESS: Self = Self { drain_delay_ms: 0, drain_timeout_ms: 5_000 };

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.drain_delay_ms)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

impl Default for DrainConfig {
    fn default() -> Self {
        crate::parse_defaults(&[])
    }
}
