//! Follows the contract of one tool service.

use std::{io, path::Path, sync::Arc, time::Duration};

use drawbridge_config::Namespace;
use drawbridge_contract::Contract;
use drawbridge_runtime::{
    RequestId, backoff::ReconnectDelays, bounded, error_chain, follow::FileFollower,
};
use drawbridge_transport::{
    BalancedChannel, CallContext,
    reflection::{self, ReflectionError},
};
use tokio::{sync::oneshot, time::sleep};

use super::{PollIntervals, health::HealthWatcher};
use crate::{
    catalog::{Catalogs, contract_hash, read_contract},
    config::ServiceSettings,
};

const REFLECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest descriptor-set file, in bytes.
pub const DESCRIPTOR_SET_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why a contract could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// Reflection failed.
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
    /// The descriptor-set file cannot be read, or is too large.
    #[error("cannot read the descriptor set")]
    Read(#[from] io::Error),
    /// The descriptor-set file is invalid.
    #[error("invalid descriptor set")]
    Descriptor(#[from] prost_reflect::DescriptorError),
}

/// The task that follows one tool service.
#[derive(Debug)]
pub(super) struct ServiceWatcher {
    pub(super) namespace: Namespace,
    pub(super) settings: ServiceSettings,
    pub(super) channel: BalancedChannel,
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) default_timeout: Duration,
    pub(super) intervals: PollIntervals,
}

impl ServiceWatcher {
    /// Reads the contract into the catalog, now and on each change. The last valid contract stays
    /// in effect on errors. `first_read` is dropped after the first attempt, whatever its result.
    ///
    /// During a rollout, replicas have different contracts. The catalog has that of the replica
    /// that answered; the poll finds the final version.
    pub(super) async fn run(self, first_read: oneshot::Sender<()>) {
        let namespace = &self.namespace;
        let mut first_read = Some(first_read);
        let mut health = HealthWatcher::new(self.channel.clone());
        let mut file = self.settings.descriptor_set.clone().map(|path| {
            FileFollower::new(move || bounded::read_file(&path, DESCRIPTOR_SET_BYTES_MAX))
        });
        let (mut current_hash, mut last_error) = (None, None);
        let mut delays = ReconnectDelays::default();
        loop {
            match load_contract(&self.settings, &self.channel).await {
                Ok(contract) => {
                    delays.reset();
                    let hash = contract_hash(&contract);
                    if current_hash != Some(hash) {
                        self.update_catalog(&contract);
                        current_hash = Some(hash);
                    } else if last_error.is_some() {
                        tracing::info!(%namespace, "the service's contract is available again");
                    }
                    last_error = None;
                    drop(first_read.take());
                    self.wait_for_change(&mut health, file.as_mut()).await;
                }
                Err(error) => {
                    let error = error_chain(&error);
                    if last_error.as_ref() != Some(&error) {
                        tracing::warn!(%namespace, error, "cannot read the contract of a service");
                        last_error = Some(error);
                    }
                    drop(first_read.take());
                    delays.wait().await;
                }
            }
        }
    }

    async fn wait_for_change(
        &self,
        health: &mut HealthWatcher,
        file: Option<&mut FileFollower<Vec<u8>, io::Error>>,
    ) {
        if let Some(file) = file {
            // The caller reads it, and reports an error.
            return drop(file.changed().await);
        }
        let health_change = async {
            health.changed().await;
            sleep(self.intervals.settle).await;
        };
        tokio::select! {
            () = health_change => {}
            () = sleep(self.intervals.contract) => {}
        }
    }

    fn update_catalog(&self, contract: &Contract) {
        let namespace = &self.namespace;
        let timeout = self.settings.timeout.unwrap_or(self.default_timeout);
        let read = read_contract(namespace, contract, &self.channel, timeout);
        let (tools, resources) = (read.tools.len(), read.resources.len());
        tracing::info!(%namespace, tools, resources, "contract read");
        self.catalogs.update(|catalog| catalog.with(namespace.clone(), read.clone()));
    }
}

/// Loads the contract of a service, from its descriptor-set file or by reflection.
pub(crate) async fn load_contract(
    settings: &ServiceSettings,
    channel: &BalancedChannel,
) -> Result<Contract, ContractError> {
    match &settings.descriptor_set {
        Some(path) => read_file(path).await,
        None => {
            let context = CallContext::new(RequestId::generate(), REFLECTION_TIMEOUT);
            Ok(reflection::fetch_contract(channel.clone(), &context).await?)
        }
    }
}

async fn read_file(path: &Path) -> Result<Contract, ContractError> {
    let bytes = bounded::read_file_async(path, DESCRIPTOR_SET_BYTES_MAX).await?;
    let pool = prost_reflect::DescriptorPool::decode(bytes.as_slice())?;
    let services = pool.services().map(|service| service.full_name().to_owned()).collect();
    Ok(Contract { pool, services })
}
