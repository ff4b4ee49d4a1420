//! Passwords that were guessed wrong: they slow down, and then lock, who guesses.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use sha2::{Digest as _, Sha256};

use crate::address::ClientAddress;

/// What failures are counted by at once.
const KEYS_MAX: u64 = 30_000;
/// How much longer an address may guess than for one user alone, and how much longer all together for one user.
const OF_ADDRESS: u32 = 4;
const OF_USER: u32 = 20;
/// How long the answer to the first failure takes; each further one takes twice as long.
const DELAY: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(2);

/// What failures are counted by. A name may be long, so its digest stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Both([u8; 32], ClientAddress),
    Address(ClientAddress),
    User([u8; 32]),
}

/// There were too many failures; `retry_after` later it is another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locked {
    pub(crate) retry_after: Duration,
}

/// One attempt, counted as a failure until it is known to be none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    keys: [Key; 3],
    failures: u32,
}

impl Attempt {
    /// How long the answer to this failure takes.
    pub(crate) fn delay(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        DELAY.saturating_mul(doubled).min(DELAY_MAX)
    }
}

/// The failures of late.
pub(crate) struct Guesses {
    failures_max: u32,
    lock: Duration,
    failures: Cache<Key, u32>,
    /// Attempts are counted one after another, so that many at once are not more than many in turn.
    counting: Mutex<()>,
}

impl Guesses {
    /// After `failures_max` failures of one address for one user there is no further attempt for `lock`; after
    /// some times as many, none of the address or none for the user.
    pub(crate) fn new(failures_max: u32, lock: Duration) -> Self {
        let failures = Cache::builder()
            .max_capacity(KEYS_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(lock)
            .build();
        Self { failures_max: failures_max.max(1), lock, failures, counting: Mutex::default() }
    }

    /// Counts an attempt, before the password is looked at.
    pub(crate) fn attempt(
        &self,
        username: &str,
        address: ClientAddress,
    ) -> Result<Attempt, Locked> {
        let user = Sha256::digest(username).into();
        let keys = [Key::Both(user, address), Key::Address(address), Key::User(user)];
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |key: Key| self.failures.get(&key).unwrap_or_default();
        if keys.into_iter().any(|key| of(key) >= self.max(key)) {
            return Err(Locked { retry_after: self.lock });
        }
        for key in keys {
            self.failures.insert(key, of(key) + 1);
        }
        Ok(Attempt { keys, failures: of(keys[0]) })
    }

    /// The password was right.
    pub(crate) fn succeeded(&self, attempt: &Attempt) {
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        for key in attempt.keys {
            match (key, self.failures.get(&key).unwrap_or_default()) {
                (Key::Both(..), _) | (_, 0 | 1) => self.failures.invalidate(&key),
                (_, failures) => self.failures.insert(key, failures - 1),
            }
        }
    }

    fn max(&self, key: Key) -> u32 {
        self.failures_max.saturating_mul(match key {
            Key::Both(..) => 1,
            Key::Address(_) => OF_ADDRESS,
            Key::User(_) => OF_USER,
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
    fn guessing_locks_the_user_for_the_address_and_for_no_other() {
        let guesses = Guesses::new(3, Duration::from_secs(60));
        let delays = [100, 200, 400].map(Duration::from_millis);
        for delay in delays {
            assert_eq!(guesses.attempt("alice", address(1)).unwrap().delay(), delay);
        }
        guesses.attempt("alice", address(1)).unwrap_err();
        guesses.attempt("alice", address(2)).unwrap();
        let bob = guesses.attempt("bob", address(1)).unwrap();
        guesses.succeeded(&bob);
        guesses.attempt("alice", address(1)).unwrap_err();
    }

    #[test]
    fn guessing_for_many_users_locks_the_address_and_guessing_of_many_addresses_the_user() {
        let guesses = Guesses::new(3, Duration::from_secs(60));
        for user in 0..3 * OF_ADDRESS {
            guesses.attempt(&user.to_string(), address(1)).unwrap();
        }
        guesses.attempt("one more", address(1)).unwrap_err();
        for number in 0..3 * OF_USER {
            guesses.attempt("alice", address(u8::try_from(100 + number).unwrap())).unwrap();
        }
        guesses.attempt("alice", address(2)).unwrap_err();
    }

    #[test]
    fn a_lock_ends() {
        let guesses = Guesses::new(1, Duration::from_millis(1));
        guesses.attempt("alice", address(1)).unwrap();
        while guesses.attempt("alice", address(1)).is_err() {
            std::thread::yield_now();
        }
    }
}
