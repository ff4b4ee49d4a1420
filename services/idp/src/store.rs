//! All that the server remembers, in memory and bounded. What anybody can add without a password has a share for each
//! address, and is refused when there is too much; of what follows a sign-in, the oldest makes room.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moka::{future::Cache, policy::EvictionPolicy};
use uuid::Uuid;

use crate::{
    address::ClientAddress,
    authorize::Pending,
    client::{Client, ClientId},
    grant::{Family, IssuedCode},
    secret,
    shares::{Full, Shares},
};

/// How long a registration is known through which nobody has signed in yet, and after each sign-in.
const CLIENT_UNUSED: Duration = Duration::from_secs(3600);
const CLIENT_IDLE: Duration = Duration::from_secs(30 * 86_400);
const PENDING_LIFETIME: Duration = Duration::from_secs(600);
/// How many addresses can use up their shares before there is no more.
const SHARES: usize = 16;
const GRANTS_MAX: u64 = 4096;

/// The id of an authorization request that waits for its user. It is known to the page that shows it
/// alone, and is not `Debug`, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PendingId(pub(crate) String);

/// An authorization code. Not `Debug`, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Code(pub(crate) String);

pub(crate) struct Store {
    configured: HashMap<ClientId, Arc<Client>>,
    clients: Shares<ClientId, Arc<Client>>,
    pending: Shares<PendingId, Arc<Pending>>,
    codes: Cache<Code, Arc<IssuedCode>>,
    families: Cache<Uuid, Arc<Family>>,
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
        let configured = configured.into_iter().map(|client| (client.id.clone(), Arc::new(client))).collect();
        Self {
            configured,
            clients: Shares::new(registrations_max.saturating_mul(SHARES), registrations_max),
            pending: Shares::new(sign_ins_max.saturating_mul(SHARES), sign_ins_max),
            // A used code is remembered as long as the tokens from it, to notice that it is used again.
            codes: bounded(GRANTS_MAX, refresh_lifetime),
            families: bounded(GRANTS_MAX, refresh_lifetime),
        }
    }

    pub(crate) fn client(&self, id: &ClientId) -> Option<Arc<Client>> {
        match self.configured.get(id) {
            Some(configured) => Some(Arc::clone(configured)),
            None => self.clients.get(id),
        }
    }

    pub(crate) fn add_client(&self, client: Arc<Client>, address: ClientAddress) -> Result<(), Full> {
        self.clients.add(client.id.clone(), client, address, CLIENT_UNUSED)
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

    /// Somebody has signed in through a client: it takes no longer from the share of its address.
    pub(crate) fn keep_client(&self, id: &ClientId) {
        self.clients.keep(id, CLIENT_IDLE);
    }

    pub(crate) async fn add_code(&self, issued: IssuedCode) -> Code {
        let code = Code(secret::random());
        self.codes.insert(code.clone(), Arc::new(issued)).await;
        code
    }

    pub(crate) async fn code(&self, code: &Code) -> Option<Arc<IssuedCode>> {
        self.codes.get(code).await
    }

    pub(crate) async fn add_family(&self, family: Family) -> Uuid {
        let id = Uuid::new_v4();
        self.families.insert(id, Arc::new(family)).await;
        id
    }

    pub(crate) async fn family(&self, id: &Uuid) -> Option<Arc<Family>> {
        self.families.get(id).await
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
