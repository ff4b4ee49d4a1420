//! All state of the server, bounded; a state file stores what must survive a restart. Entries that
//! anyone can add without a password are limited per address and rejected beyond the limit. Of
//! entries that follow a sign-in, the oldest is evicted.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{future::Cache, policy::EvictionPolicy, sync};
use uuid::Uuid;

use crate::{
    address::ClientAddress,
    client::{Client, ClientId},
    grant::{Grant, IssuedCode, Scopes, TokenFamily},
    pending::Pending,
    per_address::{Full, PerAddressMap},
    secret,
    state_file::{SavedRegistration, Snapshot},
    unix_time,
};

/// How long a registration without a sign-in is stored, and one with a sign-in after its last use.
const CLIENT_UNUSED: Duration = Duration::from_secs(3600);
const CLIENT_IDLE: Duration = Duration::from_secs(30 * 86_400);
const PENDING_LIFETIME: Duration = Duration::from_secs(600);
/// How many addresses can reach their limit before the overall limit is reached.
const ADDRESSES_AT_LIMIT: usize = 16;
const GRANTS_MAX: u64 = 4096;
/// The maximum number of registered clients with a sign-in.
const SIGNED_IN_CLIENTS_MAX: u64 = 4096;

/// The id of a pending authorization request. Only the page that shows it knows it. Not `Debug`, so
/// that it cannot be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PendingId(pub(crate) String);

/// An authorization code. Not `Debug`, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Code(pub(crate) String);

pub(crate) struct Store {
    configured: HashMap<ClientId, Arc<Client>>,
    /// Registrations without a sign-in.
    unused: PerAddressMap<ClientId, Arc<Client>>,
    /// Registrations with a sign-in. The least recently used one is evicted.
    clients: sync::Cache<ClientId, Arc<Client>>,
    pending: PerAddressMap<PendingId, Arc<Pending>>,
    codes: Cache<Code, Arc<IssuedCode>>,
    families: Cache<Uuid, Arc<TokenFamily>>,
    refresh_lifetime: Duration,
}

impl Store {
    /// `registrations_max` and `sign_ins_max` limit unused registrations and pending sign-ins per
    /// address. A grant can be refreshed for `refresh_lifetime` after its code was issued.
    pub(crate) fn new(
        configured: Vec<Client>,
        registrations_max: usize,
        sign_ins_max: usize,
        refresh_lifetime: Duration,
    ) -> Self {
        let configured =
            configured.into_iter().map(|client| (client.id.clone(), Arc::new(client))).collect();
        Self {
            configured,
            unused: PerAddressMap::new(
                registrations_max.saturating_mul(ADDRESSES_AT_LIMIT),
                registrations_max,
            ),
            clients: sync::Cache::builder()
                .max_capacity(SIGNED_IN_CLIENTS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(CLIENT_IDLE)
                .build(),
            pending: PerAddressMap::new(
                sign_ins_max.saturating_mul(ADDRESSES_AT_LIMIT),
                sign_ins_max,
            ),
            // A used code is stored as long as its tokens live, to detect reuse.
            codes: bounded(GRANTS_MAX, refresh_lifetime),
            families: bounded(GRANTS_MAX, refresh_lifetime),
            refresh_lifetime,
        }
    }

    /// The contents of a state file with this key.
    pub(crate) fn snapshot(&self, key: String) -> Snapshot {
        let clients = self.clients.iter().map(|(_, client)| client.save()).collect();
        let unused =
            self.unused.all().into_iter().map(|(client, address, expires)| SavedRegistration {
                client: client.save(),
                address: address.ip(),
                expires: unix_time::seconds(expires),
            });
        let grants = self.families.iter().filter_map(|(id, family)| family.save(*id)).collect();
        Snapshot::new(key, clients, unused.collect(), grants)
    }

    /// Adds the valid entries of a state file: grants only for these resources and scopes.
    pub(crate) async fn restore(
        &self,
        saved: Snapshot,
        is_resource: impl Fn(&str) -> bool,
        scopes: &Scopes,
    ) {
        for client in saved.clients.into_iter().filter_map(Client::restore) {
            self.clients.insert(client.id.clone(), Arc::new(client));
        }
        for SavedRegistration { client, address, expires } in saved.unused {
            let lifetime = unix_time::instant(expires).map(|expires| expires - Instant::now());
            if let Some((client, lifetime)) = Client::restore(client).zip(lifetime) {
                let address = SocketAddr::from((address, 0)).into();
                // The limit may be lower than before.
                let _ = self.unused.add(client.id.clone(), Arc::new(client), address, lifetime);
            }
        }
        for grant in saved.grants.into_iter().filter(|grant| is_resource(&grant.resource)) {
            let id = grant.family;
            if let Some(family) = TokenFamily::restore(grant, scopes) {
                self.families.insert(id, Arc::new(family)).await;
            }
        }
    }

    pub(crate) fn client(&self, id: &ClientId) -> Option<Arc<Client>> {
        match self.configured.get(id) {
            Some(configured) => Some(Arc::clone(configured)),
            None => self.clients.get(id).or_else(|| self.unused.get(id)),
        }
    }

    pub(crate) fn add_client(
        &self,
        client: Arc<Client>,
        address: ClientAddress,
    ) -> Result<(), Full> {
        self.unused.add(client.id.clone(), client, address, CLIENT_UNUSED)
    }

    pub(crate) fn add_pending(
        &self,
        pending: Arc<Pending>,
        address: ClientAddress,
    ) -> Result<PendingId, Full> {
        let id = PendingId(secret::random());
        self.pending.add(id.clone(), pending, address, PENDING_LIFETIME)?;
        Ok(id)
    }

    pub(crate) fn pending(&self, id: &PendingId) -> Option<Arc<Pending>> {
        self.pending.get(id)
    }

    /// Ends a pending request. Of two concurrent callers one gets it.
    pub(crate) fn take_pending(&self, id: &PendingId) -> Option<Arc<Pending>> {
        self.pending.take(id)
    }

    /// Marks a client as used in a sign-in: it no longer counts to the limits of registrations.
    pub(crate) fn mark_used(&self, id: &ClientId) {
        // Added first, so that it is always found.
        if let Some(client) = self.unused.get(id) {
            self.clients.insert(id.clone(), client);
            self.unused.take(id);
        }
    }

    pub(crate) async fn add_code(&self, issued: IssuedCode) -> Code {
        let code = Code(secret::random());
        self.codes.insert(code.clone(), Arc::new(issued)).await;
        code
    }

    pub(crate) async fn code(&self, code: &Code) -> Option<Arc<IssuedCode>> {
        self.codes.get(code).await
    }

    /// Creates a family of refresh tokens for a grant. Returns its id and the secret of its first
    /// token.
    pub(crate) async fn add_family(&self, grant: Arc<Grant>) -> (Uuid, String) {
        let (family, secret) = TokenFamily::new(grant, self.refresh_lifetime);
        let id = Uuid::new_v4();
        self.families.insert(id, Arc::new(family)).await;
        (id, secret)
    }

    pub(crate) async fn family(&self, id: &Uuid) -> Option<Arc<TokenFamily>> {
        // A family restored from a file may expire before its cache entry.
        self.families.get(id).await.filter(|family| family.expires > Instant::now())
    }
}

fn bounded<K, V>(entries_max: u64, lifetime: Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    // The default policy may reject new entries in favour of popular ones; here the newest must
    // stay.
    Cache::builder()
        .max_capacity(entries_max)
        .eviction_policy(EvictionPolicy::lru())
        .time_to_live(lifetime)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients with a sign-in counted to the limit of all registrations for thirty days.
    #[test]
    fn clients_with_a_sign_in_do_not_count_to_the_limit_of_registrations() {
        let store = Store::new(Vec::new(), 1, 1, Duration::from_secs(60));
        let client = |number: usize| {
            Arc::new(Client {
                id: ClientId(format!("client-{number}")),
                name: None,
                redirect_uris: Vec::new(),
                grant_types: Vec::new(),
                secret: None,
                groups: Vec::new(),
                internal: false,
            })
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 1)).into();
        for number in 0..=ADDRESSES_AT_LIMIT {
            let client = client(number);
            store.add_client(Arc::clone(&client), address).unwrap();
            store.mark_used(&client.id);
        }
        assert!((0..=ADDRESSES_AT_LIMIT).all(|number| store.client(&client(number).id).is_some()));
    }
}
