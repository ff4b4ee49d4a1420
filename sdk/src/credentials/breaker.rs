use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::error::{CredentialsError, Outage};

/// So many failures in a row, and a source is left alone for so long.
const FAILURES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// So many failures in a row, and nothing is asked for a while; then one call tries. The crates that do this bring
/// policies and statistics of their own for what is one counter here.
#[derive(Debug)]
pub(super) struct Breaker {
    of: &'static str,
    failures_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

/// A change of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// From now on nothing is asked for a while.
    Opened,
    /// It answers again.
    Closed,
}

impl Breaker {
    /// For a source of this name.
    pub(super) fn new(of: &'static str) -> Self {
        Self { of, failures_max: FAILURES_MAX, pause: PAUSE, state: Mutex::default() }
    }

    /// Makes a call, if one may be made.
    pub(super) async fn guard<T>(
        &self,
        call: impl Future<Output = Result<T, CredentialsError>>,
    ) -> Result<T, CredentialsError> {
        if !self.admits() {
            return Err(CredentialsError::Unavailable(Outage::CircuitOpen));
        }
        let done = call.await;
        // A failure inside may be that of one database; the others are not to suffer from it.
        let down = match &done {
            Err(CredentialsError::Unavailable(outage)) if *outage != Outage::Failed => Some(outage),
            _ => None,
        };
        match self.note(down.is_none()) {
            Some(Turn::Opened) => {
                let cause = down.map(ToString::to_string);
                tracing::error!(
                    cause,
                    "{} has failed repeatedly; it is left alone but for a try now and then",
                    self.of
                );
            }
            Some(Turn::Closed) => tracing::info!("{} answers again", self.of),
            None => {}
        }
        done
    }

    /// Whether a call may be made. Once the pause is over one may, and for as long again no other, unless it succeeds.
    fn admits(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match state.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                state.open_until = Some(now + self.pause);
                true
            }
            None => true,
        }
    }

    /// Notes how a call ended. Says what that changes.
    fn note(&self, answered: bool) -> Option<Turn> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = state.open_until.is_some();
        if answered {
            *state = State::default();
            return was_open.then_some(Turn::Closed);
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures < self.failures_max {
            return None;
        }
        state.open_until = Some(Instant::now() + self.pause);
        (!was_open).then_some(Turn::Opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_failures_in_a_row_one_call_tries_and_a_success_lets_all_through() {
        let breaker = Breaker {
            failures_max: 2,
            pause: Duration::from_millis(30),
            ..Breaker::new("a source")
        };
        for answered in [false, true, false] {
            assert_eq!(breaker.note(answered), None);
        }
        assert!(breaker.admits(), "they were not in a row");
        assert_eq!(breaker.note(false), Some(Turn::Opened));
        assert_eq!(breaker.note(false), None);
        assert!(!breaker.admits());
        std::thread::sleep(Duration::from_millis(40));
        assert!(breaker.admits());
        assert!(!breaker.admits(), "a second one does not try");
        assert_eq!(breaker.note(true), Some(Turn::Closed));
        assert!(breaker.admits() && breaker.admits());
    }
}
