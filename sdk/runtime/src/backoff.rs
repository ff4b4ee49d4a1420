//! Delays between attempts, which grow exponentially with jitter. The defaults of all services.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The retries of one call: two, after at most 100 and 200 milliseconds.
pub const CALL: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_times(2)
    .with_jitter();

/// The longest delay between two attempts to reconnect.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
const RECONNECT_DELAY_FIRST: Duration = Duration::from_millis(50);

/// The delays of a loop that reconnects, which has no last attempt.
#[derive(Debug)]
pub struct ReconnectDelays {
    policy: ExponentialBuilder,
    delays: ExponentialBackoff,
    longest: Duration,
}

impl Default for ReconnectDelays {
    /// At most 50 milliseconds at first, and later at most a second.
    fn default() -> Self {
        Self::new(RECONNECT_DELAY_FIRST, RECONNECT_DELAY_MAX)
    }
}

impl ReconnectDelays {
    /// At most `first` at first, and later at most `longest`; at least half of it.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        // Jitter at most doubles a delay.
        let policy = ExponentialBuilder::new()
            .with_min_delay(first / 2)
            .with_max_delay(longest / 2)
            .without_max_times()
            .with_jitter();
        Self { policy, delays: policy.build(), longest }
    }

    /// Waits before the next attempt.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// Waits after a connection that lasted this long. If that was longer than any delay, the next
    /// delay is the first again.
    pub async fn wait_after(&mut self, lasted: Duration) {
        if lasted >= self.longest {
            self.reset();
        }
        self.wait().await;
    }

    fn next(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.longest)
    }

    /// The next delay is the first again: the last attempt succeeded.
    pub fn reset(&mut self) {
        self.delays = self.policy.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_with_jitter_up_to_a_maximum_and_begin_again() {
        let mut delays = ReconnectDelays::default();
        for _ in 0..2 {
            let first = delays.next();
            assert!(first <= Duration::from_millis(50), "{first:?}");
            let later: Vec<_> = (0..100).map(|_| delays.next()).skip(10).collect();
            let range = RECONNECT_DELAY_MAX / 2..=RECONNECT_DELAY_MAX;
            assert!(later.iter().all(|delay| range.contains(delay)), "{later:?}");
            assert!(later.iter().any(|delay| *delay != later[0]), "{later:?}");
            delays.reset();
        }
    }
}
