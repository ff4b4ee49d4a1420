//! Limits password guessing: failed sign-ins are delayed, and then locked.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use sha2::{Digest as _, Sha256};

use crate::address::ClientAddress;

/// How many failure counters are stored.
const KEYS_MAX: u64 = 30_000;
/// How many times the limit for one address and user applies to one address, and to one user.
const ADDRESS_FACTOR: u32 = 4;
const USER_FACTOR: u32 = 20;
/// The delay of the response to the first failure. It doubles with each further one.
const DELAY: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(2);

/// What failures are counted by. User names may be long, so they are digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CounterKey {
    Both([u8; 32], ClientAddress),
    Address(ClientAddress),
    User([u8; 32]),
}

/// There were too many failures. The next attempt is possible after `retry_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locked {
    pub(crate) retry_after: Duration,
}

/// A sign-in attempt, which counts as a failure until it succeeds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    keys: [CounterKey; 3],
    failures: u32,
}

impl Attempt {
    /// The delay of the response to this failure.
    pub(crate) fn delay(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        DELAY.saturating_mul(doubled).min(DELAY_MAX)
    }
}

/// Counts recent failures.
pub(crate) struct SignInLimiter {
    failures_max: u32,
    lock: Duration,
    failures: Cache<CounterKey, u32>,
    /// Attempts are counted one at a time, so that concurrent ones cannot exceed the limit.
    counting: Mutex<()>,
}

impl SignInLimiter {
    /// After `failures_max` failures from one address for one user, further attempts are locked for
    /// `lock`. Higher limits apply per address and per user.
    pub(crate) fn new(failures_max: u32, lock: Duration) -> Self {
        let failures = Cache::builder()
            .max_capacity(KEYS_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(lock)
            .build();
        Self { failures_max: failures_max.max(1), lock, failures, counting: Mutex::default() }
    }

    /// Counts an attempt before the password is checked.
    pub(crate) fn begin(&self, username: &str, address: ClientAddress) -> Result<Attempt, Locked> {
        let user = Sha256::digest(username).into();
        let keys =
            [CounterKey::Both(user, address), CounterKey::Address(address), CounterKey::User(user)];
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |key: CounterKey| self.failures.get(&key).unwrap_or_default();
        if keys.into_iter().any(|key| of(key) >= self.max(key)) {
            return Err(Locked { retry_after: self.lock });
        }
        for key in keys {
            self.failures.insert(key, of(key) + 1);
        }
        Ok(Attempt { keys, failures: of(keys[0]) })
    }

    /// Records that the password was correct.
    pub(crate) fn succeed(&self, attempt: &Attempt) {
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        for key in attempt.keys {
            match (key, self.failures.get(&key).unwrap_or_default()) {
                (CounterKey::Both(..), _) | (_, 0 | 1) => self.failures.invalidate(&key),
                (_, failures) => self.failures.insert(key, failures - 1),
            }
        }
    }

    fn max(&self, key: CounterKey) -> u32 {
        self.failures_max.saturating_mul(match key {
            CounterKey::Both(..) => 1,
            CounterKey::Address(_) => ADDRESS_FACTOR,
            CounterKey::User(_) => USER_FACTOR,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn address(last: u8) -> ClientAddress {
        SocketAddr::from(([127, 0, 0, last], 1)).into()
    }

    #[test]
    fn failures_lock_the_user_for_one_address_only() {
        let limiter = SignInLimiter::new(3, Duration::from_secs(60));
        let delays = [100, 200, 400].map(Duration::from_millis);
        for delay in delays {
            assert_eq!(limiter.begin("alice", address(1)).unwrap().delay(), delay);
        }
        limiter.begin("alice", address(1)).unwrap_err();
        limiter.begin("alice", address(2)).unwrap();
        let bob = limiter.begin("bob", address(1)).unwrap();
        limiter.succeed(&bob);
        limiter.begin("alice", address(1)).unwrap_err();
    }

    #[test]
    fn failures_for_many_users_lock_the_address_and_from_many_addresses_the_user() {
        let limiter = SignInLimiter::new(3, Duration::from_secs(60));
        for user in 0..3 * ADDRESS_FACTOR {
            limiter.begin(&user.to_string(), address(1)).unwrap();
        }
        limiter.begin("one more", address(1)).unwrap_err();
        for number in 0..3 * USER_FACTOR {
            limiter.begin("alice", address(u8::try_from(100 + number).unwrap())).unwrap();
        }
        limiter.begin("alice", address(2)).unwrap_err();
    }

    #[test]
    fn a_lock_expires() {
        let limiter = SignInLimiter::new(1, Duration::from_millis(1));
        limiter.begin("alice", address(1)).unwrap();
        while limiter.begin("alice", address(1)).is_err() {
            std::thread::yield_now();
        }
    }
}
