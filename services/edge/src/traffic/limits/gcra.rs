//! The arithmetic of a limit: the generic cell rate algorithm. The only state of a bucket is the
//! time at which it will be full again. `take.lua` does the same in Redis.

/// The rate and capacity of a bucket. An ordinary request costs one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Microseconds in which one unit is added.
    pub(super) unit_micros: u64,
    /// Units in a full bucket.
    pub(super) burst: u64,
}

/// The status of a bucket before a request is charged to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketStatus {
    pub(super) quota: Quota,
    /// Microseconds until the bucket holds the cost; 0 when it does now.
    pub(super) wait_micros: u64,
    /// Microseconds until the bucket is full, if the request takes nothing.
    pub(super) deficit_micros: u64,
}

impl Quota {
    /// Microseconds in which an empty bucket fills.
    pub(super) const fn fill_micros(self) -> u64 {
        self.unit_micros.saturating_mul(self.burst)
    }

    /// Microseconds in which this many units are added.
    pub(super) const fn micros(self, units: u64) -> u64 {
        self.unit_micros.saturating_mul(units)
    }

    /// Checks whether a bucket that will be full at `full_at` holds `cost` units `now`. Both times
    /// are microseconds of the same clock.
    pub(super) fn check(self, full_at: u64, now: u64, cost: u64) -> BucketStatus {
        // A larger deficit than the capacity comes from an earlier quota or another clock.
        let deficit_micros = full_at.saturating_sub(now).min(self.fill_micros());
        let wait_micros = (deficit_micros + self.micros(cost)).saturating_sub(self.fill_micros());
        BucketStatus { quota: self, wait_micros, deficit_micros }
    }
}

impl BucketStatus {
    /// Whole units in the bucket after `taken` units are taken.
    pub(super) fn remaining(&self, taken: u64) -> u64 {
        let deficit = self.deficit_micros + self.quota.micros(taken);
        self.quota.fill_micros().saturating_sub(deficit) / self.quota.unit_micros.max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token bucket that stores its level.
    struct Model {
        quota: Quota,
        /// In microseconds of refill.
        level: u64,
        at: u64,
    }

    impl Model {
        fn take(&mut self, now: u64, cost: u64) -> bool {
            self.level =
                (self.level + (now - self.at)).min(self.quota.unit_micros * self.quota.burst);
            self.at = now;
            let passes = self.level >= cost * self.quota.unit_micros;
            if passes {
                self.level -= cost * self.quota.unit_micros;
            }
            passes
        }
    }

    proptest! {
        #[test]
        fn the_algorithm_admits_what_a_token_bucket_admits(
            unit_micros in 1_u64..1000,
            burst in 1_u64..20,
            requests in prop::collection::vec((0_u64..3000, 1_u64..20), 1..200),
        ) {
            let quota = Quota { unit_micros, burst };
            let mut model = Model { quota, level: unit_micros * burst, at: 0 };
            let (mut full_at, mut now, mut taken) = (0, 0, 0);
            for (pause, cost) in requests {
                now += pause;
                let cost = cost.min(burst);
                let status = quota.check(full_at, now, cost);
                let passes = status.wait_micros == 0;
                prop_assert_eq!(passes, model.take(now, cost));
                let taken_now = if passes { cost } else { 0 };
                prop_assert_eq!(status.remaining(taken_now), model.level / unit_micros);
                if passes {
                    full_at = now + status.deficit_micros + quota.micros(cost);
                    taken += cost;
                } else {
                    // The wait is exact: a microsecond less does not suffice.
                    let then = now + status.wait_micros;
                    prop_assert_eq!(quota.check(full_at, then, cost).wait_micros, 0);
                    prop_assert_ne!(quota.check(full_at, then - 1, cost).wait_micros, 0);
                }
                prop_assert!(taken <= burst + now / unit_micros);
            }
        }

        #[test]
        fn a_bucket_of_an_earlier_quota_is_at_worst_empty(
            full_at: u64,
            now in 0..u64::MAX / 2,
            burst in 1_u64..20,
        ) {
            let quota = Quota { unit_micros: 10, burst };
            prop_assert!(quota.check(full_at, now, 1).wait_micros <= 10);
        }
    }
}
