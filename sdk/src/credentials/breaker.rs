use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many failures in a row, and nothing is asked for a while; then one call tries. The crates that do this bring
/// policies and statistics of their own for what is one counter here.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, pause: Duration) -> Self {
        Self { failures_max, pause, state: Mutex::default() }
    }

    /// Whether a call may be made. Once the pause is over one may, and for as long again no other, unless it succeeds.
    pub(super) fn admits(&self) -> bool {
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

    /// Notes how a call ended.
    pub(super) fn note(&self, answered: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            *state = State::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.failures_max {
            state.open_until = Some(Instant::now() + self.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_failures_in_a_row_one_call_tries_and_a_success_lets_all_through() {
        let breaker = Breaker::new(2, Duration::from_millis(30));
        breaker.note(false);
        breaker.note(true);
        breaker.note(false);
        assert!(breaker.admits(), "they were not in a row");
        breaker.note(false);
        assert!(!breaker.admits());
        std::thread::sleep(Duration::from_millis(40));
        assert!(breaker.admits());
        assert!(!breaker.admits(), "a second one does not try");
        breaker.note(true);
        assert!(breaker.admits() && breaker.admits());
    }
}
