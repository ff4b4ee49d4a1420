//! A circuit breaker. Crates for this bring policies and statistics for what is one counter here.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Rejects calls to what has failed repeatedly, except for one trial call after each pause.
#[derive(Debug)]
pub struct CircuitBreaker {
    failures_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Calls are admitted. They have failed this often in a row.
    Closed { failures: u32 },
    /// Calls are rejected until then.
    Open { until: Instant },
    /// One trial call is in flight, and others are rejected.
    HalfOpen,
}

/// A change of the state that a call caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Calls are rejected from now on.
    Opened,
    /// Calls are admitted again.
    Closed,
}

/// Permission for one call, whose outcome must be recorded. A trial call that is dropped without an
/// outcome counts as failed.
#[derive(Debug)]
#[must_use = "the outcome of the call must be recorded"]
pub struct CircuitPermit<'a> {
    breaker: &'a CircuitBreaker,
    is_trial: bool,
    is_recorded: bool,
}

impl CircuitBreaker {
    /// A closed circuit. It opens after `failures_max` consecutive failures, and stays open for
    /// `pause` before each trial call.
    #[must_use]
    pub const fn new(failures_max: u32, pause: Duration) -> Self {
        Self { failures_max, pause, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Admits a call, or rejects it: `None`.
    pub fn admit(&self) -> Option<CircuitPermit<'_>> {
        let mut state = self.lock();
        let is_trial = match *state {
            State::Closed { .. } => false,
            State::Open { until } if until <= Instant::now() => {
                *state = State::HalfOpen;
                true
            }
            State::Open { .. } | State::HalfOpen => return None,
        };
        Some(CircuitPermit { breaker: self, is_trial, is_recorded: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that were admitted before the circuit opened change nothing.
    fn record(&self, is_trial: bool, succeeded: bool) -> Option<Transition> {
        let mut state = self.lock();
        let open = State::Open { until: Instant::now() + self.pause };
        let (next, transition) = match (*state, succeeded) {
            (State::Closed { .. }, true) => (State::Closed { failures: 0 }, None),
            (State::Closed { failures }, false) if failures + 1 < self.failures_max => {
                (State::Closed { failures: failures + 1 }, None)
            }
            (State::Closed { .. }, false) => (open, Some(Transition::Opened)),
            (State::HalfOpen, true) if is_trial => {
                (State::Closed { failures: 0 }, Some(Transition::Closed))
            }
            (State::HalfOpen, false) if is_trial => (open, None),
            (unchanged, _) => (unchanged, None),
        };
        *state = next;
        transition
    }
}

impl CircuitPermit<'_> {
    /// Records the outcome of the call.
    pub fn record(mut self, succeeded: bool) -> Option<Transition> {
        self.is_recorded = true;
        self.breaker.record(self.is_trial, succeeded)
    }
}

impl Drop for CircuitPermit<'_> {
    fn drop(&mut self) {
        if self.is_trial && !self.is_recorded {
            self.breaker.record(true, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);

    fn call(breaker: &CircuitBreaker, succeeds: bool) -> Option<Transition> {
        breaker.admit().expect("admission").record(succeeds)
    }

    #[tokio::test(start_paused = true)]
    async fn consecutive_failures_open_the_circuit_and_a_successful_trial_call_closes_it() {
        let breaker = CircuitBreaker::new(2, PAUSE);
        for succeeds in [false, true, false] {
            assert_eq!(call(&breaker, succeeds), None, "they are not consecutive");
        }
        assert_eq!(call(&breaker, false), Some(Transition::Opened));
        advance(PAUSE - Duration::from_millis(1)).await;
        assert!(breaker.admit().is_none());
        advance(Duration::from_millis(1)).await;
        let trial = breaker.admit().unwrap();
        assert!(breaker.admit().is_none(), "one trial call is admitted");
        assert_eq!(trial.record(true), Some(Transition::Closed));
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_call_that_fails_or_is_dropped_opens_the_circuit_for_another_pause() {
        let breaker = CircuitBreaker::new(1, PAUSE);
        assert_eq!(call(&breaker, false), Some(Transition::Opened));
        advance(PAUSE).await;
        assert_eq!(call(&breaker, false), None, "it was open already");
        assert!(breaker.admit().is_none());
        advance(PAUSE).await;
        drop(breaker.admit().unwrap());
        assert!(breaker.admit().is_none());
        advance(PAUSE).await;
        assert_eq!(call(&breaker, true), Some(Transition::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_from_before_the_circuit_opened_neither_close_it_nor_prolong_the_pause() {
        let breaker = CircuitBreaker::new(1, PAUSE);
        let (slow, slower) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert_eq!(call(&breaker, false), Some(Transition::Opened));
        advance(PAUSE / 2).await;
        assert_eq!(slow.record(true), None);
        assert_eq!(slower.record(false), None);
        assert!(breaker.admit().is_none());
        advance(PAUSE / 2).await;
        assert!(breaker.admit().is_some());
    }
}
