//! All that the server remembers, bounded; what outlives a restart is in a state file besides. What anybody can add without a password has a share for each
//! address, and is refused when there is too much; of what follows a sign-in, the oldest makes room.

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
    authorize::Pending,
    client::{Client, ClientId},
    grant::{Family, Grant, IssuedCode, Scopes},
    secret,
    shares::{Full, Shares},
    state_file::{self, SavedRegistration, Snapshot},
};

/// How long a registration is known through which nobody has signed in yet, and after each use when somebody has.
const CLIENT_UNUSED: Duration = Duration::from_secs(3600);
const CLIENT_IDLE: Duration = Duration::from_secs(30 * 86_400);
const PENDING_LIFETIME: Duration = Duration::from_secs(600);
/// How many addresses can use up their shares before there is no more.
const SHARES: usize = 16;
const GRANTS_MAX: u64 = 4096;
/// Registered clients through which somebody has signed in.
const SIGNED_IN_CLIENTS_MAX: u64 = 4096;

/// The id of an authorization request that waits for its user. It is known to the page that shows it
/// alone, and is not `Debug`, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PendingId(pub(crate) String);

/// An authorization code. Not `Debug`, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Code(pub(crate) String);

pub(crate) struct Store {
    configured: HashMap<ClientId, Arc<Client>>,
    /// Registrations through which nobody has signed in yet.
    unused: Shares<ClientId, Arc<Client>>,
    /// Those through which somebody has. The one that is unused for longest makes room.
    clients: sync::Cache<ClientId, Arc<Client>>,
    pending: Shares<PendingId, Arc<Pending>>,
    codes: Cache<Code, Arc<IssuedCode>>,
    families: Cache<Uuid, Arc<Family>>,
    refresh_lifetime: Duration,
}

impl Store {
    /// Each address has so many registrations without a sign-in, and so many sign-ins that wait. A grant can be
    /// refreshed for `refresh_lifetime` after its code was issued.
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
            unused: Shares::new(registrations_max.saturating_mul(SHARES), registrations_max),
            clients: sync::Cache::builder()
                .max_capacity(SIGNED_IN_CLIENTS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(CLIENT_IDLE)
                .build(),
            pending: Shares::new(sign_ins_max.saturating_mul(SHARES), sign_ins_max),
            // A used code is remembered as long as the tokens from it, to notice that it is used again.
            codes: bounded(GRANTS_MAX, refresh_lifetime),
            families: bounded(GRANTS_MAX, refresh_lifetime),
            refresh_lifetime,
        }
    }

    /// What a state file has of it, with this key.
    pub(crate) fn snapshot(&self, key: String) -> Snapshot {
        let clients = self.clients.iter().map(|(_, client)| client.save()).collect();
        let unused =
            self.unused.all().into_iter().map(|(client, address, expires)| SavedRegistration {
                client: client.save(),
                address: address.ip(),
                expires: state_file::seconds(expires),
            });
        let grants = self.families.iter().filter_map(|(id, family)| family.save(*id)).collect();
        Snapshot::new(key, clients, unused.collect(), grants)
    }

    /// Adds what a state file has, as far as it is still good: grants for one of these resources and scopes.
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
            let lifetime = state_file::instant(expires).map(|expires| expires - Instant::now());
            if let Some((client, lifetime)) = Client::restore(client).zip(lifetime) {
                let address = SocketAddr::from((address, 0)).into();
                // There may be fewer than before.
                let _ = self.unused.add(client.id.clone(), Arc::new(client), address, lifetime);
            }
        }
        for grant in saved.grants.into_iter().filter(|grant| is_resource(&grant.resource)) {
            let id = grant.family;
            if let Some(family) = Family::restore(grant, scopes) {
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

    /// Ends a pending request. Of two callers at once, one gets it.
    pub(crate) fn take_pending(&self, id: &PendingId) -> Option<Arc<Pending>> {
        self.pending.take(id)
    }

    /// Somebody has signed in through a client: it takes no longer from the share of its address, nor from what all
    /// addresses may register.
    pub(crate) fn keep_client(&self, id: &ClientId) {
        // Added before it is removed, so that it is always known.
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

    /// Begins the refresh tokens of a grant: the id of their family, and the secret of the first.
    pub(crate) async fn add_family(&self, grant: Arc<Grant>) -> (Uuid, String) {
        let (family, secret) = Family::new(grant, self.refresh_lifetime);
        let id = Uuid::new_v4();
        self.families.insert(id, Arc::new(family)).await;
        (id, secret)
    }

    pub(crate) async fn family(&self, id: &Uuid) -> Option<Arc<Family>> {
        // One of before a restart is in memory for longer than it lasts.
        self.families.get(id).await.filter(|family| family.expires > Instant::now())
    }
}

fn bounded<K, V>(entries_max: u64, lifetime: Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    // The default policy would refuse newcomers for the sake of popular entries; here the newest counts.
    Cache::builder()
        .max_capacity(entries_max)
        .eviction_policy(EvictionPolicy::lru())
        .time_to_live(lifetime)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients with a sign-in counted among the registrations of all addresses for thirty days.
    #[test]
    fn clients_with_a_sign_in_leave_the_registrations_of_others_free() {
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
        for number in 0..=SHARES {
            let client = client(number);
            store.add_client(Arc::clone(&client), address).unwrap();
            store.keep_client(&client.id);
        }
        assert!((0..=SHARES).all(|number| store.client(&client(number).id).is_some()));
    }
}
