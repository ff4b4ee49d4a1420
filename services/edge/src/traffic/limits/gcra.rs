//! The arithmetic of a limit: the generic cell rate algorithm. All that is kept of a bucket is when it will be
//! full again. `take.lua` does the same in Redis.

/// How fast a bucket fills, and how much it holds. An ordinary request takes one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Microseconds in which one unit comes.
    pub(super) unit_micros: u64,
    /// Units that a full bucket holds.
    pub(super) burst: u64,
}

/// What one bucket says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) quota: Quota,
    /// Microseconds until the bucket holds enough; 0 when it does now.
    pub(super) wait_micros: u64,
    /// Microseconds until the bucket would be full, if nothing were taken.
    pub(super) lack_micros: u64,
}

impl Quota {
    /// Microseconds in which an empty bucket fills.
    pub(super) const fn fill_micros(self) -> u64 {
        self.unit_micros.saturating_mul(self.burst)
    }

    /// Microseconds in which so many units come.
    pub(super) const fn micros(self, units: u64) -> u64 {
        self.unit_micros.saturating_mul(units)
    }

    /// Asks a bucket that will be full at `full_at` for `cost` units, `now`. Times are microseconds since whenever.
    pub(super) fn ask(self, full_at: u64, now: u64, cost: u64) -> Answer {
        // A bucket that seems to lack more than it can hold was kept under another quota, or another clock.
        let lack_micros = full_at.saturating_sub(now).min(self.fill_micros());
        let wait_micros = (lack_micros + self.micros(cost)).saturating_sub(self.fill_micros());
        Answer { quota: self, wait_micros, lack_micros }
    }
}

impl Answer {
    /// Whole units in the bucket once `taken` are taken.
    pub(super) fn remaining(&self, taken: u64) -> u64 {
        let lack = self.lack_micros + self.quota.micros(taken);
        self.quota.fill_micros().saturating_sub(lack) / self.quota.unit_micros.max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same as a bucket that is filled drop by drop.
    struct Model {
        quota: Quota,
        /// In microseconds' worth of units.
        held: u64,
        at: u64,
    }

    impl Model {
        fn take(&mut self, now: u64, cost: u64) -> bool {
            self.held =
                (self.held + (now - self.at)).min(self.quota.unit_micros * self.quota.burst);
            self.at = now;
            let passes = self.held >= cost * self.quota.unit_micros;
            if passes {
                self.held -= cost * self.quota.unit_micros;
            }
            passes
        }
    }

    proptest! {
        #[test]
        fn a_bucket_gives_what_one_filled_drop_by_drop_gives(
            unit_micros in 1_u64..1000,
            burst in 1_u64..20,
            requests in prop::collection::vec((0_u64..3000, 1_u64..20), 1..200),
        ) {
            let quota = Quota { unit_micros, burst };
            let mut model = Model { quota, held: unit_micros * burst, at: 0 };
            let (mut full_at, mut now, mut taken) = (0, 0, 0);
            for (pause, cost) in requests {
                now += pause;
                let cost = cost.min(burst);
                let answer = quota.ask(full_at, now, cost);
                let passes = answer.wait_micros == 0;
                prop_assert_eq!(passes, model.take(now, cost));
                prop_assert_eq!(answer.remaining(if passes { cost } else { 0 }), model.held / unit_micros);
                if passes {
                    full_at = now + answer.lack_micros + quota.micros(cost);
                    taken += cost;
                } else {
                    // The wait is exact: a microsecond less is too little.
                    let then = now + answer.wait_micros;
                    prop_assert_eq!(quota.ask(full_at, then, cost).wait_micros, 0);
                    prop_assert_ne!(quota.ask(full_at, then - 1, cost).wait_micros, 0);
                }
                prop_assert!(taken <= burst + now / unit_micros);
            }
        }

        #[test]
        fn a_bucket_of_another_quota_is_empty_at_worst(full_at: u64, now in 0..u64::MAX / 2, burst in 1_u64..20) {
            let quota = Quota { unit_micros: 10, burst };
            prop_assert!(quota.ask(full_at, now, 1).wait_micros <= 10);
        }
    }
}
