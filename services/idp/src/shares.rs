//! Entries of many clients in a bounded memory, of which each address has a share.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::address::ClientAddress;

/// There are as many entries as there may be, in all or of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Entries until they expire. Nothing that somebody else adds removes one.
pub(crate) struct Shares<K, V> {
    entries_max: usize,
    of_address_max: usize,
    entries: Mutex<HashMap<K, Entry<V>>>,
}

struct Entry<V> {
    value: V,
    expires: Instant,
    /// Whose share it takes from.
    address: ClientAddress,
}

impl<K: Eq + Hash, V: Clone> Shares<K, V> {
    /// At most `entries_max`, and `of_address_max` of one address.
    pub(crate) fn new(entries_max: usize, of_address_max: usize) -> Self {
        Self { entries_max, of_address_max, entries: Mutex::default() }
    }

    pub(crate) fn add(
        &self,
        key: K,
        value: V,
        address: ClientAddress,
        lifetime: Duration,
    ) -> Result<(), Full> {
        let mut entries = self.entries();
        let now = Instant::now();
        entries.retain(|_, entry| entry.expires > now);
        let of_address = entries.values().filter(|entry| entry.address == address).count();
        if entries.len() >= self.entries_max || of_address >= self.of_address_max {
            return Err(Full);
        }
        entries.insert(key, Entry { value, expires: now + lifetime, address });
        Ok(())
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entries = self.entries();
        let entry = entries.get(key).filter(|entry| entry.expires > Instant::now())?;
        Some(entry.value.clone())
    }

    /// Removes an entry. Of two callers at once, one gets it.
    pub(crate) fn take<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.entries().remove(key).filter(|entry| entry.expires > Instant::now())?;
        Some(entry.value)
    }

    /// All entries that have not expired, with whose they are and when they do.
    pub(crate) fn all(&self) -> Vec<(V, ClientAddress, Instant)> {
        let entries = self.entries();
        let now = Instant::now();
        let good = entries.values().filter(|entry| entry.expires > now);
        good.map(|entry| (entry.value.clone(), entry.address, entry.expires)).collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<K, Entry<V>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn address(last: u8) -> ClientAddress {
        SocketAddr::from(([127, 0, 0, last], 1)).into()
    }

    #[test]
    fn an_address_fills_its_own_share_and_pushes_nobody_out() {
        let shares = Shares::new(5, 2);
        shares.add("mine", 0, address(1), LONG).unwrap();
        for key in ["a", "b"] {
            shares.add(key, 1, address(2), LONG).unwrap();
        }
        assert_eq!(shares.add("c", 1, address(2), LONG), Err(Full));
        shares.add("d", 1, address(3), LONG).unwrap();
        assert_eq!(shares.get("mine"), Some(0));
        assert_eq!(shares.take("a"), Some(1));
        shares.add("c", 1, address(2), LONG).unwrap();
        shares.add("f", 1, address(5), LONG).unwrap();
        assert_eq!(shares.add("e", 1, address(4), LONG), Err(Full), "of all there are five");
        assert_eq!((shares.take("c"), shares.take("c")), (Some(1), None));
        shares.add("e", 1, address(4), LONG).unwrap();
    }

    #[test]
    fn what_has_expired_makes_room() {
        let shares = Shares::new(1, 1);
        shares.add("a", 1, address(1), Duration::ZERO).unwrap();
        assert_eq!((shares.get("a"), shares.take("a")), (None, None));
        shares.add("b", 2, address(1), LONG).unwrap();
        assert_eq!(shares.get("b"), Some(2));
    }
}
