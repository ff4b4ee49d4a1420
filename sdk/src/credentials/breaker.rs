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

/// A change of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// From now on nothing is asked for a while.
    Opened,
    /// It answers again.
    Closed,
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

    /// Notes how a call ended. Says what that changes.
    pub(super) fn note(&self, answered: bool) -> Option<Turn> {
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
        let breaker = Breaker::new(2, Duration::from_millis(30));
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
