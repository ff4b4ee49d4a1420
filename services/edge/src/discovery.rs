//! Discovers what tool services offer and follows changes.
//!
//! Each service has its own task that reads its contract at the start and on each change. The set
//! of services follows the config file.

use std::{collections::BTreeMap, future::ready, sync::Arc, time::Duration};

use drawbridge_config::Namespace;
use drawbridge_runtime::{
    Effect, Readiness, ServiceBuilder,
    follow::{FollowReport, FollowedFiles},
};
use drawbridge_transport::{BalancedChannel, ChannelError, Peers};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::service::ServiceWatcher;
use crate::{
    StartError,
    catalog::{CatalogConfig, Catalogs, LockEnforcer, Overlay},
    config::{ConfigFile, ConfigSources, ParsedConfig, Reloadable, ServiceSettings, Services},
    metrics::{CONFIG_CURRENT, CONFIG_RELOADS_FAILED},
};

pub(crate) use self::service::load_contract;
pub use self::service::{ContractError, DESCRIPTOR_SET_BYTES_MAX};

mod health;
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
/// When the config file or an address is invalid.
pub(crate) async fn start(
    builder: &ServiceBuilder,
    flags: Services,
    file: Option<ConfigFile>,
    discovery: Discovery,
) -> Result<(), StartError> {
    let mut discovery = discovery;
    discovery.readiness = builder.readiness();
    let (sources, config) = match &file {
        Some(file) => {
            let sources = file.read().await?;
            let config = sources.parse(&flags).await?;
            (Some(sources), config)
        }
        None => (None, ParsedConfig { services: flags.clone(), ..ParsedConfig::default() }),
    };
    let first_reads =
        discovery.apply(config.services, config.overlay, config.lock_enforcer).await?;
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
    let files = file.map(|file| {
        let read = move || Ok(ConfigSources::read(file.path())?);
        FollowedFiles::new(report(), read, builder.readiness(), builder.stopping())
    });
    let stopping = builder.stopping();
    builder.spawn(async move {
        let following = async {
            match files.zip(sources) {
                Some((files, sources)) => discovery.follow_files(files, flags, sources).await,
                None => std::future::pending().await,
            }
        };
        stopping.run_until_cancelled(following).await;
    });
    Ok(())
}

/// How changes of the config file are reported.
fn report() -> FollowReport<StartError> {
    FollowReport {
        topic: "config",
        current: CONFIG_CURRENT.get(),
        failed: CONFIG_RELOADS_FAILED.get(),
        note: |error| match error {
            StartError::ConfigFile(error) => error.brief(),
            _ => "the config file cannot be used: see the log".to_owned(),
        },
    }
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
    /// Waits for the first reads of services that a reload added.
    first_reads: Option<AbortOnDropHandle<()>>,
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
        let peers = Peers::default();
        let services = BTreeMap::new();
        Self {
            catalogs,
            reloadable,
            default_timeout,
            intervals,
            peers,
            readiness: Readiness::default(),
            services,
            first_reads: None,
        }
    }

    /// Connects to services with the identity of these peers.
    pub(crate) fn with_peers(self, peers: Peers) -> Self {
        Self { peers, ..self }
    }

    /// Replaces the set of services, the overlay and the lock. The returned tasks end when each new
    /// service was read, or failed, once. On an error nothing changes.
    async fn apply(
        &mut self,
        services: Services,
        overlay: Overlay,
        lock: Option<Arc<LockEnforcer>>,
    ) -> Result<JoinSet<()>, ChannelError> {
        let mut started = Vec::new();
        for (namespace, settings) in &services {
            if self.services.get(namespace).is_none_or(|followed| followed.settings != *settings) {
                let id = settings.spiffe_id.as_ref();
                let channel = self.peers.balanced(&settings.urls, namespace.as_str(), id)?;
                started.push((namespace.clone(), settings.clone(), channel));
            }
        }
        // Before a new service is read, so that clients see its items only with this configuration.
        let namespaces = Arc::new(services.keys().cloned().collect());
        self.catalogs.set_config(&CatalogConfig { overlay: Arc::new(overlay), lock, namespaces });
        let removed: Vec<_> = self
            .services
            .keys()
            .filter(|namespace| !services.contains_key(*namespace))
            .cloned()
            .collect();
        for namespace in removed {
            self.stop(&namespace).await;
            self.catalogs.update(|catalog| catalog.without(&namespace));
            tracing::info!(%namespace, "a tool service is no longer offered");
        }
        let mut first_reads = JoinSet::new();
        for (namespace, settings, channel) in started {
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
        Ok(first_reads)
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

    /// Follows the config file and its lock file until the service stops. `running` is what they
    /// were at start.
    async fn follow_files(
        mut self,
        mut files: FollowedFiles<ConfigSources, StartError>,
        flags: Services,
        mut running: ConfigSources,
    ) {
        while let Some(sources) = files.next().await {
            if *sources == running {
                files.report(Ok(false));
                continue;
            }
            let applied = self.reload(&flags, &sources).await;
            files.report(applied.map(|()| {
                running.clone_from(&sources);
                true
            }));
        }
    }

    async fn reload(
        &mut self,
        flags: &Services,
        sources: &ConfigSources,
    ) -> Result<(), StartError> {
        let config = sources.parse(flags).await?;
        let first_reads = self.apply(config.services, config.overlay, config.lock_enforcer).await?;
        let catalogs = Arc::clone(&self.catalogs);
        self.first_reads = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            first_reads.join_all().await;
            catalogs.warn_of_unknown_tools();
        })));
        self.reloadable.set(config.policy).await;
        Ok(())
    }
}
