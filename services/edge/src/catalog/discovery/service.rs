//! Follows one tool service.

use std::{io, path::Path, sync::Arc, time::Duration};

use drawbridge_sdk::{
    BalancedChannel, CallContext, RequestId, error_chain,
    reflection::{self, Contract, ReflectionError},
};
use tokio::{sync::oneshot, time::sleep};

use super::{Pace, health::Health};
use crate::{
    catalog::{Catalogs, Namespace, contract_hash, read_contract},
    config::ServiceSettings,
};

const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest descriptor-set file, in bytes.
const DESCRIPTOR_SET_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A contract could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// The service does not give it.
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
    /// Its file cannot be read.
    #[error("cannot read the descriptor set")]
    Read(#[from] io::Error),
    /// Its file is too large.
    #[error("the descriptor set has more than {DESCRIPTOR_SET_BYTES_MAX} bytes")]
    TooLarge,
    /// Its file is none.
    #[error("the descriptor set is broken")]
    Descriptor(#[from] prost_reflect::DescriptorError),
}

/// One tool service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) namespace: Namespace,
    pub(super) settings: ServiceSettings,
    pub(super) channel: BalancedChannel,
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) default_timeout: Duration,
    pub(super) pace: Pace,
}

impl Service {
    /// Reads the contract into the catalog, now and on every change. What was good last stays while there is
    /// nothing better. `asked` is told when the service was asked once, whatever it answered.
    ///
    /// Replicas of different versions, as in a rollout, offer what the one that is asked offers; the poll
    /// finds the last version.
    pub(super) async fn follow(self, asked: oneshot::Sender<()>) {
        let namespace = &self.namespace;
        let mut asked = Some(asked);
        let mut health = Health::new(self.channel.clone());
        let (mut known, mut problem) = (None, None);
        let mut delay = self.pace.retry_first;
        loop {
            match contract(&self.settings, &self.channel).await {
                Ok(contract) => {
                    delay = self.pace.retry_first;
                    let hash = contract_hash(&contract);
                    if known != Some(hash) {
                        self.offer(&contract);
                        known = Some(hash);
                    } else if problem.is_some() {
                        tracing::info!(%namespace, "the tool service gives its contract again");
                    }
                    problem = None;
                    drop(asked.take());
                    self.wait_for_change(&mut health).await;
                }
                Err(error) => {
                    let error = error_chain(&error);
                    if problem.as_ref() != Some(&error) {
                        tracing::warn!(%namespace, error, "a tool service gives no contract");
                        problem = Some(error);
                    }
                    drop(asked.take());
                    sleep(delay).await;
                    delay = (delay * 2).min(self.pace.retry_max);
                }
            }
        }
    }

    async fn wait_for_change(&self, health: &mut Health) {
        if self.settings.descriptor_set.is_some() {
            return sleep(self.pace.file).await;
        }
        let noticing = async {
            health.changed().await;
            // Changes that come in a row are read once, and a replica that goes is gone by then.
            sleep(self.pace.retry_first).await;
        };
        tokio::select! {
            () = noticing => {}
            () = sleep(self.pace.contract) => {}
        }
    }

    fn offer(&self, contract: &Contract) {
        let namespace = &self.namespace;
        let timeout = self.settings.timeout.unwrap_or(self.default_timeout);
        let read = read_contract(namespace, contract, &self.channel, timeout);
        tracing::info!(%namespace, tools = read.tools.len(), resources = read.resources.len(), "contract read");
        self.catalogs.update(|catalog| catalog.with(namespace.clone(), read.clone()));
    }
}

/// The contract of a service, from its file or by reflection.
pub(crate) async fn contract(
    settings: &ServiceSettings,
    channel: &BalancedChannel,
) -> Result<Contract, ContractError> {
    match &settings.descriptor_set {
        Some(path) => read_file(path).await,
        None => {
            let context = CallContext::new(RequestId::generate(), ASK_TIMEOUT);
            Ok(reflection::contract(channel.clone(), &context).await?)
        }
    }
}

async fn read_file(path: &Path) -> Result<Contract, ContractError> {
    use tokio::io::AsyncReadExt as _;

    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(DESCRIPTOR_SET_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > DESCRIPTOR_SET_BYTES_MAX {
        return Err(ContractError::TooLarge);
    }
    let pool = prost_reflect::DescriptorPool::decode(bytes.as_slice())?;
    let services = pool.services().map(|service| service.full_name().to_owned()).collect();
    Ok(Contract { pool, services })
}
