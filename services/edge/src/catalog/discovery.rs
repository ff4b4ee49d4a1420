//! Finds out what tool services offer, and keeps finding out.
//!
//! Every service has a task of its own that reads its contract, at first and on change. Which services there
//! are follows the config file.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drawbridge_sdk::{ChannelError, Peers, ServiceBuilder, error_chain};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;

use self::service::Service;
use crate::{
    StartError,
    catalog::{Catalogs, Namespace, Pins, Terms, View},
    config::{ConfigFile, Live, Said, ServiceSettings, Services, Texts},
};

pub use self::service::ContractError;
pub(crate) use self::service::contract;

mod health;
mod service;
#[cfg(test)]
mod tests;

/// How often things are looked at again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The config file and descriptor-set files.
    pub(crate) file: Duration,
    /// A contract, when nothing tells of a change.
    pub(crate) contract: Duration,
    /// A service that did not answer, at first.
    pub(crate) retry_first: Duration,
    /// A service that did not answer again and again.
    pub(crate) retry_max: Duration,
}

impl Pace {
    pub(crate) fn new(contract: Duration) -> Self {
        Self {
            file: Duration::from_secs(1),
            contract,
            retry_first: Duration::from_millis(200),
            retry_max: Duration::from_secs(2),
        }
    }
}

/// Begins to read what services offer into `catalogs`. The edge is ready when each that there is now was
/// asked once.
///
/// # Errors
/// When the config file cannot be used, or an address is none.
pub(crate) async fn start(
    starting: &ServiceBuilder,
    flags: Services,
    file: Option<ConfigFile>,
    discovery: Discovery,
) -> Result<(), StartError> {
    let mut discovery = discovery;
    let (texts, said) = match &file {
        Some(file) => {
            let texts = file.read().await?;
            let said = texts.parse(&flags).await?;
            metrics::gauge!("edge_config_current").set(1);
            (Some(texts), said)
        }
        None => (None, Said { services: flags.clone(), ..Said::default() }),
    };
    let asked = discovery.apply(said.services, said.view, said.pins).await?;
    discovery.live.set(said.duties).await;

    let (readiness, stopping) = (starting.readiness(), starting.stopping());
    let catalogs = Arc::clone(&discovery.catalogs);
    starting.spawn(async move {
        if stopping.run_until_cancelled(asked.join_all()).await.is_some() {
            catalogs.settle();
            readiness.ready();
            catalogs.warn_of_unknown();
        }
    });
    let stopping = starting.stopping();
    starting.spawn(async move {
        stopping.run_until_cancelled(discovery.follow(file, flags, texts)).await;
    });
    Ok(())
}

/// The tool services that are followed.
#[derive(Debug)]
pub(crate) struct Discovery {
    catalogs: Arc<Catalogs>,
    live: Live,
    default_timeout: Duration,
    pace: Pace,
    peers: Peers,
    followed: BTreeMap<Namespace, Followed>,
}

#[derive(Debug)]
struct Followed {
    settings: ServiceSettings,
    task: AbortOnDropHandle<()>,
}

impl Discovery {
    pub(crate) fn new(
        catalogs: Arc<Catalogs>,
        live: Live,
        default_timeout: Duration,
        pace: Pace,
    ) -> Self {
        let peers = Peers::default();
        Self { catalogs, live, default_timeout, pace, peers, followed: BTreeMap::new() }
    }

    /// Speaks to services as one of these peers.
    pub(crate) fn among(self, peers: Peers) -> Self {
        Self { peers, ..self }
    }

    /// Follows these services from now on, and no others, shows them so, and holds them against these pins. The set
    /// that it gives back ends when each new one was asked once. An error changes nothing.
    async fn apply(
        &mut self,
        services: Services,
        view: View,
        pins: Option<Arc<Pins>>,
    ) -> Result<JoinSet<()>, ChannelError> {
        let mut begun = Vec::new();
        for (namespace, settings) in &services {
            if self.followed.get(namespace).is_none_or(|followed| followed.settings != *settings) {
                let id = settings.spiffe_id.as_ref();
                let channel = self.peers.balanced(&settings.urls, namespace.as_str(), id)?;
                begun.push((namespace.clone(), settings.clone(), channel));
            }
        }
        // Before a new service is asked, so that nothing of it is seen otherwise than it should be.
        let namespaces = Arc::new(services.keys().cloned().collect());
        self.catalogs.set(&Terms { view: Arc::new(view), pins, namespaces });
        let gone: Vec<_> = self
            .followed
            .keys()
            .filter(|namespace| !services.contains_key(*namespace))
            .cloned()
            .collect();
        for namespace in gone {
            self.stop(&namespace).await;
            self.catalogs.update(|catalog| catalog.without(&namespace));
            tracing::info!(%namespace, "a tool service is no longer offered");
        }
        let mut asked = JoinSet::new();
        for (namespace, settings, channel) in begun {
            // What a service offered stays until it is read anew, from where it is now.
            self.stop(&namespace).await;
            let service = Service {
                namespace: namespace.clone(),
                settings: settings.clone(),
                channel,
                catalogs: Arc::clone(&self.catalogs),
                default_timeout: self.default_timeout,
                pace: self.pace,
            };
            let (tell, told) = oneshot::channel();
            asked.spawn(async move {
                // It ends with the word or without: a service may be stopped before it is asked.
                let _ = told.await;
            });
            let task = AbortOnDropHandle::new(tokio::spawn(service.follow(tell)));
            self.followed.insert(namespace, Followed { settings, task });
        }
        Ok(asked)
    }

    /// Stops following a service. Afterwards its task changes the catalog no more.
    async fn stop(&mut self, namespace: &Namespace) {
        if let Some(followed) = self.followed.remove(namespace) {
            followed.task.abort();
            // It ends with an error, which is that it was stopped.
            let _ = followed.task.await;
        }
    }

    /// Follows the config file and the lock that it names, which say `texts` now.
    async fn follow(mut self, file: Option<ConfigFile>, flags: Services, texts: Option<Texts>) {
        let (Some(file), Some(texts)) = (file, texts) else { return std::future::pending().await };
        let mut running = texts.clone();
        let (mut looked_at, mut last) = (Some(texts.clone()), Some(texts));
        let mut ticks = interval(self.pace.file);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The content is compared, not the time: a ConfigMap's files change by a swap of links.
            let read = file.read().await;
            let now = read.as_ref().ok().cloned();
            // What is seen twice is whole: a file that is just being written may look empty.
            let whole = now == last;
            last.clone_from(&now);
            if !whole || now == looked_at {
                continue;
            }
            let applied = match read {
                Ok(texts) if texts == running => Ok(()),
                Ok(texts) => self.reload(&flags, &texts).await.map(|()| running = texts),
                Err(error) => Err(error.into()),
            };
            looked_at = now;
            metrics::gauge!("edge_config_current").set(if applied.is_ok() { 1 } else { 0 });
            match applied {
                Ok(()) => {
                    tracing::info!(file = %file.path().display(), "the config file is in effect")
                }
                Err(error) => tracing::error!(
                    file = %file.path().display(),
                    error = %error_chain(&error),
                    "the config file is not used; what ran before goes on"
                ),
            }
        }
    }

    async fn reload(&mut self, flags: &Services, texts: &Texts) -> Result<(), StartError> {
        let said = texts.parse(flags).await?;
        let asked = self.apply(said.services, said.view, said.pins).await?;
        let catalogs = Arc::clone(&self.catalogs);
        tokio::spawn(async move {
            asked.join_all().await;
            catalogs.warn_of_unknown();
        });
        self.live.set(said.duties).await;
        Ok(())
    }
}
