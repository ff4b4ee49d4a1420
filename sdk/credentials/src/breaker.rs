use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::error::{CredentialsError, Outage};

/// After this many consecutive failures the circuit opens for the pause.
const FAILURES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// A circuit breaker: it opens after consecutive failures, and then admits one trial call per
/// pause. Crates for this bring policies and statistics for what is one counter here.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    name: &'static str,
    failures_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

/// A state transition of the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transition {
    /// Calls are rejected from now on.
    Opened,
    /// Calls succeed again.
    Closed,
}

impl CircuitBreaker {
    /// A breaker for the source of this name.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, failures_max: FAILURES_MAX, pause: PAUSE, state: Mutex::default() }
    }

    /// Runs an operation, unless the circuit is open.
    pub(super) async fn call<T>(
        &self,
        operation: impl Future<Output = Result<T, CredentialsError>>,
    ) -> Result<T, CredentialsError> {
        if !self.admit() {
            return Err(CredentialsError::Unavailable(Outage::CircuitOpen));
        }
        let done = operation.await;
        // An internal failure may concern one database; the others must not suffer from it.
        let outage = match &done {
            Err(CredentialsError::Unavailable(outage)) if *outage != Outage::Failed => Some(outage),
            _ => None,
        };
        match self.record(outage.is_none()) {
            Some(Transition::Opened) => {
                let cause = outage.map(ToString::to_string);
                tracing::error!(
                    cause,
                    "{} failed repeatedly; its circuit is open but for trial calls",
                    self.name
                );
            }
            Some(Transition::Closed) => {
                tracing::info!("{} answers again; its circuit is closed", self.name);
            }
            None => {}
        }
        done
    }

    /// Whether a call may be made. Once the pause is over one trial call is admitted, and no other
    /// for another pause, unless it succeeds.
    fn admit(&self) -> bool {
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

    /// Records the outcome of a call. Returns the transition that it causes.
    fn record(&self, succeeded: bool) -> Option<Transition> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = state.open_until.is_some();
        if succeeded {
            *state = State::default();
            return was_open.then_some(Transition::Closed);
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures < self.failures_max {
            return None;
        }
        state.open_until = Some(Instant::now() + self.pause);
        (!was_open).then_some(Transition::Opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circuit_opens_after_consecutive_failures_and_a_successful_trial_call_closes_it() {
        let breaker = CircuitBreaker {
            failures_max: 2,
            pause: Duration::from_millis(30),
            ..CircuitBreaker::new("a source")
        };
        for succeeded in [false, true, false] {
            assert_eq!(breaker.record(succeeded), None);
        }
        assert!(breaker.admit(), "they were not consecutive");
        assert_eq!(breaker.record(false), Some(Transition::Opened));
        assert_eq!(breaker.record(false), None);
        assert!(!breaker.admit());
        std::thread::sleep(Duration::from_millis(40));
        assert!(breaker.admit());
        assert!(!breaker.admit(), "only one trial call is admitted");
        assert_eq!(breaker.record(true), Some(Transition::Closed));
        assert!(breaker.admit() && breaker.admit());
    }
}
