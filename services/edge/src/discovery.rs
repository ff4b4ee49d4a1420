//! Asks tool services for their contracts, until they answer.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use drawbridge_sdk::{CallContext, ChannelError, RequestId, Starting, connect, reflection};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    ServiceAddress,
    catalog::{Catalog, read_contract},
};

const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Begins to read the contracts of `services` into `catalog`. The edge is ready when each was asked once.
pub(crate) fn spawn(
    starting: &Starting,
    services: &[ServiceAddress],
    catalog: &Arc<ArcSwap<Catalog>>,
    call_timeout: Duration,
) -> Result<(), ChannelError> {
    let mut first_asked = JoinSet::new();
    for service in services {
        let reader = Reader {
            service: service.clone(),
            channel: connect(&service.url)?,
            catalog: Arc::clone(catalog),
            call_timeout,
        };
        let (asked, first) = tokio::sync::oneshot::channel();
        first_asked.spawn(first);
        let stopping = starting.stopping();
        starting.spawn(async move {
            stopping.run_until_cancelled(reader.read_until_done(asked)).await;
        });
    }
    let readiness = starting.readiness();
    let stopping = starting.stopping();
    starting.spawn(async move {
        if stopping.run_until_cancelled(first_asked.join_all()).await.is_some() {
            readiness.ready();
        }
    });
    Ok(())
}

struct Reader {
    service: ServiceAddress,
    channel: Channel,
    catalog: Arc<ArcSwap<Catalog>>,
    call_timeout: Duration,
}

impl Reader {
    async fn read_until_done(self, asked: tokio::sync::oneshot::Sender<()>) {
        let mut asked = Some(asked);
        let mut delay = RETRY_FIRST;
        while !self.read().await {
            drop(asked.take());
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_MAX);
        }
    }

    async fn read(&self) -> bool {
        let namespace = &self.service.namespace;
        let context = CallContext::new(RequestId::generate(), ASK_TIMEOUT);
        match reflection::contract(self.channel.clone(), &context).await {
            Ok(contract) => {
                let read = read_contract(namespace, &contract, &self.channel, self.call_timeout);
                tracing::info!(%namespace, tools = read.tools.len(), resources = read.resources.len(), "contract read");
                self.catalog.rcu(|catalog| catalog.with(namespace.clone(), read.clone()));
                true
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%namespace, url = %self.service.url, error, "a tool service gives no contract");
                false
            }
        }
    }
}
