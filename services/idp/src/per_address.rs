//! A bounded map with a limit of entries per client address.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::address::ClientAddress;

/// The limit of all entries, or of one address, is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Entries until they expire. Entries of other addresses are never evicted.
pub(crate) struct PerAddressMap<K, V> {
    entries_max: usize,
    entries_per_address_max: usize,
    entries: Mutex<HashMap<K, Entry<V>>>,
}

struct Entry<V> {
    value: V,
    expires: Instant,
    /// The address to whose limit it counts.
    address: ClientAddress,
}

impl<K: Eq + Hash, V: Clone> PerAddressMap<K, V> {
    /// At most `entries_max` entries, and `entries_per_address_max` of one address.
    pub(crate) fn new(entries_max: usize, entries_per_address_max: usize) -> Self {
        Self { entries_max, entries_per_address_max, entries: Mutex::default() }
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
        if entries.len() >= self.entries_max || of_address >= self.entries_per_address_max {
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

    /// Removes an entry. Of two concurrent callers one gets it.
    pub(crate) fn take<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.entries().remove(key).filter(|entry| entry.expires > Instant::now())?;
        Some(entry.value)
    }

    /// All entries that have not expired, with their addresses and expiry times.
    pub(crate) fn all(&self) -> Vec<(V, ClientAddress, Instant)> {
        let entries = self.entries();
        let now = Instant::now();
        let valid = entries.values().filter(|entry| entry.expires > now);
        valid.map(|entry| (entry.value.clone(), entry.address, entry.expires)).collect()
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
    fn an_address_reaches_its_own_limit_and_evicts_no_entry_of_others() {
        let map = PerAddressMap::new(5, 2);
        map.add("mine", 0, address(1), LONG).unwrap();
        for key in ["a", "b"] {
            map.add(key, 1, address(2), LONG).unwrap();
        }
        assert_eq!(map.add("c", 1, address(2), LONG), Err(Full));
        map.add("d", 1, address(3), LONG).unwrap();
        assert_eq!(map.get("mine"), Some(0));
        assert_eq!(map.take("a"), Some(1));
        map.add("c", 1, address(2), LONG).unwrap();
        map.add("f", 1, address(5), LONG).unwrap();
        assert_eq!(map.add("e", 1, address(4), LONG), Err(Full), "there are five entries");
        assert_eq!((map.take("c"), map.take("c")), (Some(1), None));
        map.add("e", 1, address(4), LONG).unwrap();
    }

    #[test]
    fn expired_entries_free_capacity() {
        let map = PerAddressMap::new(1, 1);
        map.add("a", 1, address(1), Duration::ZERO).unwrap();
        assert_eq!((map.get("a"), map.take("a")), (None, None));
        map.add("b", 2, address(1), LONG).unwrap();
        assert_eq!(map.get("b"), Some(2));
    }
}
