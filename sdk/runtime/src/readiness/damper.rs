//! Keeps a condition from flapping.

/// After this many failed checks in a row a dependency is down.
const FAILURES_MAX: u32 = 4;
/// After this many successful checks in a row a dependency that was down is up again.
const SUCCESSES_MIN: u32 = 2;

/// Turns the results of checks into a state that does not flap.
#[derive(Debug, Default)]
pub(super) struct Damper {
    /// Absent: no check has succeeded yet.
    is_up: Option<bool>,
    /// How many results in a row contradict the state.
    contradictions: u32,
}

impl Damper {
    /// Whether a check has succeeded since the start.
    pub(super) fn has_succeeded(&self) -> bool {
        self.is_up.is_some()
    }

    /// Returns the new state, or the current reason.
    pub(super) fn record(&mut self, checked: Result<(), String>) -> Option<Result<(), String>> {
        let needed = match self.is_up {
            // Its dependencies may still be starting.
            None => 2 * FAILURES_MAX,
            Some(true) => FAILURES_MAX,
            Some(false) => SUCCESSES_MIN,
        };
        if self.is_up == Some(checked.is_ok()) {
            self.contradictions = 0;
            return checked.is_err().then_some(checked);
        }
        self.contradictions += 1;
        if self.contradictions < needed && (self.is_up.is_some() || checked.is_err()) {
            return None;
        }
        if self.is_up.is_some() || checked.is_ok() {
            (self.is_up, self.contradictions) = (Some(checked.is_ok()), 0);
        }
        Some(checked)
    }
}
