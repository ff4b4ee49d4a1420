//! All that the server remembers, in memory and bounded. When a store is full, what was not used for
//! longest makes room.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moka::{future::Cache, policy::EvictionPolicy};
use uuid::Uuid;

use crate::{
    authorize::Pending,
    client::{Client, ClientId},
    grant::{Family, IssuedCode},
    secret,
};

const CLIENTS_MAX: u64 = 4096;
const CLIENT_IDLE: Duration = Duration::from_secs(30 * 86_400);
const PENDING_MAX: u64 = 1024;
const PENDING_LIFETIME: Duration = Duration::from_secs(600);
const GRANTS_MAX: u64 = 4096;

/// The id of an authorization request that waits for its user. It is known to the page that shows it
/// alone, and is not `Debug`, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PendingId(pub(crate) String);

/// An authorization code. Not `Debug`, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Code(pub(crate) String);

pub(crate) struct Store {
    workloads: HashMap<ClientId, Arc<Client>>,
    clients: Cache<ClientId, Arc<Client>>,
    pending: Cache<PendingId, Arc<Pending>>,
    codes: Cache<Code, Arc<IssuedCode>>,
    families: Cache<Uuid, Arc<Family>>,
}

impl Store {
    /// A grant can be refreshed for `refresh_lifetime` after its code was issued.
    pub(crate) fn new(workloads: Vec<Client>, refresh_lifetime: Duration) -> Self {
        let workloads = workloads.into_iter().map(|client| (client.id.clone(), Arc::new(client))).collect();
        Self {
            workloads,
            clients: Cache::builder()
                .max_capacity(CLIENTS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(CLIENT_IDLE)
                .build(),
            pending: bounded(PENDING_MAX, PENDING_LIFETIME),
            // A used code is remembered as long as the tokens from it, to notice that it is used again.
            codes: bounded(GRANTS_MAX, refresh_lifetime),
            families: bounded(GRANTS_MAX, refresh_lifetime),
        }
    }

    pub(crate) async fn client(&self, id: &ClientId) -> Option<Arc<Client>> {
        match self.workloads.get(id) {
            Some(workload) => Some(Arc::clone(workload)),
            None => self.clients.get(id).await,
        }
    }

    pub(crate) async fn add_client(&self, client: Arc<Client>) {
        self.clients.insert(client.id.clone(), client).await;
    }

    pub(crate) async fn add_pending(&self, pending: Arc<Pending>) -> PendingId {
        let id = PendingId(secret::random());
        self.pending.insert(id.clone(), pending).await;
        id
    }

    pub(crate) async fn pending(&self, id: &PendingId) -> Option<Arc<Pending>> {
        self.pending.get(id).await
    }

    /// Ends a pending request. Of two callers at once, one gets it.
    pub(crate) async fn take_pending(&self, id: &PendingId) -> Option<Arc<Pending>> {
        self.pending.remove(id).await
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
