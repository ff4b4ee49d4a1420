//! Discovers what tool services offer and follows changes.
//!
//! Each service has its own task that reads its contract at the start and on each change. The set
//! of services follows the config file.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drawbridge_runtime::{ServiceBuilder, error_chain};
use drawbridge_transport::{ChannelError, Peers};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;

use self::service::ServiceWatcher;
use crate::{
    StartError,
    catalog::{CatalogConfig, Catalogs, LockEnforcer, Overlay},
    config::{ConfigFile, ConfigSources, ParsedConfig, Reloadable, ServiceSettings, Services},
    namespace::Namespace,
};

pub use self::service::ContractError;
pub(crate) use self::service::load_contract;

mod health;
mod service;
#[cfg(test)]
mod tests;

/// Intervals of polling and retries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollIntervals {
    /// The config file and descriptor-set files.
    pub(crate) file: Duration,
    /// A contract, without a sign of a change.
    pub(crate) contract: Duration,
    /// The first retry of a service that did not answer.
    pub(crate) retry_first: Duration,
    /// The longest delay between retries.
    pub(crate) retry_max: Duration,
}

impl PollIntervals {
    pub(crate) fn new(contract: Duration) -> Self {
        Self {
            file: Duration::from_secs(1),
            contract,
            retry_first: Duration::from_millis(200),
            retry_max: Duration::from_secs(2),
        }
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
    let (sources, config) = match &file {
        Some(file) => {
            let sources = file.read().await?;
            let config = sources.parse(&flags).await?;
            metrics::gauge!("edge_config_current").set(1);
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
    let stopping = builder.stopping();
    builder.spawn(async move {
        stopping.run_until_cancelled(discovery.follow_files(file, flags, sources)).await;
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
    services: BTreeMap<Namespace, FollowedService>,
}

#[derive(Debug)]
struct FollowedService {
    settings: ServiceSettings,
    task: AbortOnDropHandle<()>,
}

impl Discovery {
    pub(crate) fn new(
        catalogs: Arc<Catalogs>,
        reloadable: Reloadable,
        default_timeout: Duration,
        intervals: PollIntervals,
    ) -> Self {
        let peers = Peers::default();
        Self { catalogs, reloadable, default_timeout, intervals, peers, services: BTreeMap::new() }
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
            let task = AbortOnDropHandle::new(tokio::spawn(watcher.run(done)));
            self.services.insert(namespace, FollowedService { settings, task });
        }
        Ok(first_reads)
    }

    /// Stops following a service. Afterwards its task does not change the catalog any more.
    async fn stop(&mut self, namespace: &Namespace) {
        if let Some(followed) = self.services.remove(namespace) {
            followed.task.abort();
            // The error is that the task was aborted.
            let _ = followed.task.await;
        }
    }

    /// Follows the config file and its lock file, whose current contents are `sources`.
    async fn follow_files(
        mut self,
        file: Option<ConfigFile>,
        flags: Services,
        sources: Option<ConfigSources>,
    ) {
        let (Some(file), Some(sources)) = (file, sources) else {
            return std::future::pending().await;
        };
        let mut running_sources = sources.clone();
        let (mut handled, mut last_read) = (Some(sources.clone()), Some(sources));
        let mut ticks = interval(self.intervals.file);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Contents are compared, not times: files of a ConfigMap change by a swap of symlinks.
            let read = file.read().await;
            let now = read.as_ref().ok().cloned();
            // A file that is being written may look empty, so a change must be read twice.
            let is_stable = now == last_read;
            last_read.clone_from(&now);
            if !is_stable || now == handled {
                continue;
            }
            let applied = match read {
                Ok(sources) if sources == running_sources => Ok(()),
                Ok(sources) => {
                    self.reload(&flags, &sources).await.map(|()| running_sources = sources)
                }
                Err(error) => Err(error.into()),
            };
            handled = now;
            metrics::gauge!("edge_config_current").set(if applied.is_ok() { 1 } else { 0 });
            match applied {
                Ok(()) => {
                    tracing::info!(file = %file.path().display(), "the config file is in effect");
                }
                Err(error) => tracing::error!(
                    file = %file.path().display(),
                    error = %error_chain(&error),
                    "the config file is invalid; the previous configuration stays in effect"
                ),
            }
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
        tokio::spawn(async move {
            first_reads.join_all().await;
            catalogs.warn_of_unknown_tools();
        });
        self.reloadable.set(config.policy).await;
        Ok(())
    }
}
