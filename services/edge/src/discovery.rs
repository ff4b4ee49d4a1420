//! Discovers what tool services offer and follows changes.
//!
//! Each service has its own task that reads its contract at the start and on each change. The set
//! of services follows the config file and, where that is configured, Kubernetes' Services.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    sync::Arc,
    time::Duration,
};

use drawbridge_audit::AuditLog;
use drawbridge_config::Namespace;
use drawbridge_runtime::{Effect, Readiness, ServiceBuilder, error_chain};
use drawbridge_transport::{BalancedChannel, ChannelError, Peers};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{
    follow::FollowedConfig,
    kubernetes::{Addressing, Found, Selection, Service},
    service::ServiceWatcher,
};
use crate::{
    StartError,
    catalog::{CatalogConfig, Catalogs, LockEnforcer, Overlay},
    config::{
        ConfigFile, OtherServices, ParsedConfig, Reloadable, ServiceSettings, Services,
        record_change,
    },
    metrics::DISCOVERED_SERVICES,
};

pub(crate) use self::service::load_contract;
pub use self::{
    kubernetes::{
        KubernetesConfig, KubernetesError, KubernetesNamespace, KubernetesNamespaceError,
    },
    service::{ContractError, DESCRIPTOR_SET_BYTES_MAX},
};

mod follow;
mod health;
mod kubernetes;
mod service;
#[cfg(test)]
mod tests;

/// When contracts are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollIntervals {
    /// A contract, without a sign of a change.
    pub(crate) contract: Duration,
    /// After a sign of a change, before the contract is read: a burst of changes ends, and so does
    /// an ending replica.
    pub(crate) settle: Duration,
}

impl PollIntervals {
    pub(crate) fn new(contract: Duration) -> Self {
        Self { contract, settle: Duration::from_millis(200) }
    }
}

/// Starts to read the contracts of services into the catalog. The edge is ready when each initial
/// service was read, or failed, once.
///
/// # Errors
/// When the config file or an address is invalid, or Kubernetes' API server is not known.
pub(crate) async fn start(
    builder: &ServiceBuilder,
    flags: Services,
    file: Option<ConfigFile>,
    kubernetes: &KubernetesConfig,
    audit: &AuditLog,
    mut discovery: Discovery,
) -> Result<(), StartError> {
    discovery.readiness = builder.readiness();
    let others = OtherServices { flags, are_discovered: kubernetes.discover_kubernetes };
    let (sources, config) = match &file {
        Some(file) => {
            let sources = file.read().await?;
            let config = sources.parse(&others).await?;
            record_change(audit, file.path(), Some(&sources), Ok(()));
            (Some(sources), config)
        }
        None => {
            let services = others.flags.clone();
            (None, ParsedConfig { services, ..ParsedConfig::default() })
        }
    };
    let mut found = kubernetes::start(builder, kubernetes).await?;
    discovery.found = found.borrow_and_update().clone();
    let overlay = Arc::new(config.overlay);
    let first_reads = discovery.apply(config.services, overlay, config.lock_enforcer).await?;
    discovery.reloadable.set(config.policy).await;

    let (readiness, stopping) = (builder.readiness(), builder.stopping());
    let catalogs = Arc::clone(&discovery.catalogs);
    builder.spawn(async move {
        if stopping.run_until_cancelled(first_reads.join_all()).await.is_some() {
            catalogs.settle();
            readiness.set_ready();
            catalogs.warn_of_unknown_tools();
        }
    });
    let file = file
        .zip(sources)
        .map(|(file, running)| FollowedConfig::new(builder, audit, file, running, others));
    let stopping = builder.stopping();
    builder.spawn(async move {
        stopping.run_until_cancelled(discovery.follow(file, found)).await;
    });
    Ok(())
}

/// The tool services and the tasks that follow them.
#[derive(Debug)]
pub(crate) struct Discovery {
    catalogs: Arc<Catalogs>,
    reloadable: Reloadable,
    default_timeout: Duration,
    intervals: PollIntervals,
    peers: Peers,
    readiness: Readiness,
    services: BTreeMap<Namespace, FollowedService>,
    /// The services of flags and the config file, and the rest of the configuration in force.
    configured: Services,
    overlay: Arc<Overlay>,
    lock: Option<Arc<LockEnforcer>>,
    /// The labelled Services of Kubernetes.
    found: Found,
    /// The host of such a Service.
    host: fn(&Service) -> String,
    /// Those that are not offered, and why.
    refused: BTreeMap<String, String>,
    /// Waits for the first reads of services that a change added.
    first_reads: Option<AbortOnDropHandle<()>>,
}

/// A service to follow from now on.
struct NewService {
    namespace: Namespace,
    settings: ServiceSettings,
    channel: BalancedChannel,
}

#[derive(Debug)]
struct FollowedService {
    settings: ServiceSettings,
    /// Watch its contract, and whether it can be reached.
    tasks: [AbortOnDropHandle<()>; 2],
}

impl Discovery {
    pub(crate) fn new(
        catalogs: Arc<Catalogs>,
        reloadable: Reloadable,
        default_timeout: Duration,
        intervals: PollIntervals,
    ) -> Self {
        Self {
            catalogs,
            reloadable,
            default_timeout,
            intervals,
            peers: Peers::default(),
            readiness: Readiness::default(),
            services: BTreeMap::new(),
            configured: Services::new(),
            overlay: Arc::default(),
            lock: None,
            found: Found::default(),
            host: Service::host,
            refused: BTreeMap::new(),
            first_reads: None,
        }
    }

    /// Reaches the labelled Services at this host.
    #[cfg(test)]
    fn with_host(self, host: fn(&Service) -> String) -> Self {
        Self { host, ..self }
    }

    /// Connects to services with the identity of these peers.
    pub(crate) fn with_peers(self, peers: Peers) -> Self {
        Self { peers, ..self }
    }

    /// Replaces the configured services, the overlay and the lock, and selects among the discovered
    /// services. The returned tasks end when each new service was read, or failed, once. On an error
    /// nothing changes.
    async fn apply(
        &mut self,
        configured: Services,
        overlay: Arc<Overlay>,
        lock: Option<Arc<LockEnforcer>>,
    ) -> Result<JoinSet<()>, ChannelError> {
        let mut new = Vec::new();
        for (namespace, settings) in &configured {
            new.extend(self.unless_followed(namespace, settings)?);
        }
        let addressing = Addressing { edge: self.peers.id(), host: self.host };
        let is_taken = |name: &str| configured.contains_key(name) || overlay.has_server(name);
        let Selection { services, mut refused } =
            kubernetes::select(&self.found, &addressing, is_taken);
        let mut namespaces: BTreeSet<_> = configured.keys().cloned().collect();
        for (namespace, (service, settings)) in services {
            match self.unless_followed(&namespace, &settings) {
                Ok(started) => {
                    if started.is_some() {
                        tracing::info!(%namespace, service, "discovered a tool service");
                    }
                    new.extend(started);
                    namespaces.insert(namespace);
                }
                Err(error) => drop(refused.insert(service, error_chain(&error))),
            }
        }
        self.report_refused(refused, namespaces.len() - configured.len());
        let removed: Vec<_> =
            self.services.keys().filter(|it| !namespaces.contains(*it)).cloned().collect();
        // Before a new service is read, so that clients see its items only with this configuration.
        self.catalogs.set_config(&CatalogConfig {
            overlay: Arc::clone(&overlay),
            lock: lock.clone(),
            namespaces: Arc::new(namespaces),
            awaits_services: !self.found.is_complete(),
        });
        (self.configured, self.overlay, self.lock) = (configured, overlay, lock);
        for namespace in removed {
            self.stop(&namespace).await;
            self.catalogs.update(|catalog| catalog.without(&namespace));
            tracing::info!(%namespace, "a tool service is no longer offered");
        }
        let mut first_reads = JoinSet::new();
        for service in new {
            self.replace(service, &mut first_reads).await;
        }
        Ok(first_reads)
    }

    /// The service with its channel, unless it is followed with these settings.
    fn unless_followed(
        &self,
        namespace: &Namespace,
        settings: &ServiceSettings,
    ) -> Result<Option<NewService>, ChannelError> {
        if self.services.get(namespace).is_some_and(|followed| followed.settings == *settings) {
            return Ok(None);
        }
        let id = settings.spiffe_id.as_ref();
        let channel = self.peers.balanced(&settings.urls, namespace.as_str(), id)?;
        let (namespace, settings) = (namespace.clone(), settings.clone());
        Ok(Some(NewService { namespace, settings, channel }))
    }

    /// Follows a service in place of one with the same namespace.
    async fn replace(&mut self, service: NewService, first_reads: &mut JoinSet<()>) {
        let NewService { namespace, settings, channel } = service;
        // The items of a changed service stay until its contract is read with the new settings.
        self.stop(&namespace).await;
        let reachable = self.watch_replicas(&namespace, &channel);
        let watcher = ServiceWatcher {
            namespace: namespace.clone(),
            settings: settings.clone(),
            channel,
            catalogs: Arc::clone(&self.catalogs),
            default_timeout: self.default_timeout,
            intervals: self.intervals,
        };
        let (done, first_read) = oneshot::channel();
        first_reads.spawn(async move {
            // An error means that the watcher was stopped before.
            let _ = first_read.await;
        });
        let tasks = [tokio::spawn(watcher.run(done)), tokio::spawn(reachable)];
        let tasks = tasks.map(AbortOnDropHandle::new);
        self.services.insert(namespace, FollowedService { settings, tasks });
    }

    fn report_refused(&mut self, refused: BTreeMap<String, String>, offered: usize) {
        for (service, problem) in &refused {
            if self.refused.get(service) != Some(problem) {
                tracing::warn!(service, problem, "a labelled Service is not offered");
            }
        }
        for (state, count) in [("offered", offered), ("refused", refused.len())] {
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            DISCOVERED_SERVICES.with([state.into()]).set(count);
        }
        self.refused = refused;
    }

    /// Stops following a service. Afterwards its task does not change the catalog any more.
    async fn stop(&mut self, namespace: &Namespace) {
        for task in self.services.remove(namespace).into_iter().flat_map(|it| it.tasks) {
            task.abort();
            // The error is that the task was aborted.
            let _ = task.await;
        }
    }

    /// Watches whether a replica of the service can be reached. The edge does without: the tools of
    /// others work, and calls of this one's fail with a retryable error.
    fn watch_replicas(
        &self,
        namespace: &Namespace,
        channel: &BalancedChannel,
    ) -> impl Future<Output = ()> + Send + use<> {
        let condition = self.readiness.condition(format!("service:{namespace}"), Effect::Degrading);
        let replicas = channel.counts();
        let check = move || {
            let is_live = replicas.borrow().live > 0;
            ready(is_live.then_some(()).ok_or_else(|| "no replica can be reached".to_owned()))
        };
        condition.monitor(check, CancellationToken::new())
    }
}
