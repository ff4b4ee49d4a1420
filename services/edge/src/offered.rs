//! What clients would see of some services, found out without an edge that runs: for the catalog lock.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawbridge_sdk::{
    BalancedChannel, ChannelError, ConfigText, ConfigTextError, Peers, contract::offers, reflection::Contract,
};
use url::Url;

use crate::{
    catalog::{Catalog, CatalogLock, Namespace, NamespaceError, read_contract},
    discovery::{ContractError, contract},
    services::{Services, lock_path, parse},
};

/// What clients would see.
#[derive(Debug)]
pub struct Offered {
    /// All of it.
    pub lock: CatalogLock,
    /// Where the config file says that it is locked.
    pub file: Option<PathBuf>,
}

/// It could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum OfferedError {
    /// The config file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigTextError),
    /// A service's address is none.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A contract names a namespace that is none.
    #[error("{namespace:?} is no namespace")]
    Namespace {
        /// What it names.
        namespace: String,
        /// Why it is none.
        source: NamespaceError,
    },
    /// A service gives no contract.
    #[error("cannot read the contract of the service {namespace}")]
    Contract {
        /// The service.
        namespace: Namespace,
        /// Why not.
        source: ContractError,
    },
}

/// What clients would see of these contracts or, without any, of the services that a config file names.
///
/// # Errors
/// When the file or a contract cannot be read.
pub async fn offered(
    config: Option<&Path>,
    peers: &Peers,
    contracts: &[Contract],
) -> Result<Offered, OfferedError> {
    let text = config.map(ConfigText::read).transpose()?;
    let said = text.as_ref().map(|text| parse(text, &Services::new())).transpose()?.unwrap_or_default();
    let mut found = Vec::new();
    for one in contracts {
        found.extend(by_namespace(one)?);
    }
    if contracts.is_empty() {
        for (namespace, settings) in &said.services {
            let id = settings.spiffe_id.as_ref();
            let channel = peers.balanced(&settings.urls, namespace.as_str(), id)?;
            let read = contract(settings, &channel).await;
            let read =
                read.map_err(|source| OfferedError::Contract { namespace: namespace.clone(), source })?;
            found.push((namespace.clone(), read));
        }
    }
    // Nothing is called: any address will do.
    let nowhere: Vec<Url> = "http://127.0.0.1:1".parse().into_iter().collect();
    let channel = BalancedChannel::new(&nowhere)?;
    let nothing = Catalog::default().seen_through(&Arc::new(said.view), None);
    let catalog = found.into_iter().fold(nothing, |catalog, (namespace, contract)| {
        let service = read_contract(&namespace, &contract, &channel, Duration::ZERO);
        catalog.with(namespace, service)
    });
    Ok(Offered { lock: catalog.lock(), file: text.as_ref().and_then(lock_path) })
}

/// The services of a contract, by the namespaces that they name.
fn by_namespace(contract: &Contract) -> Result<Vec<(Namespace, Contract)>, OfferedError> {
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for offer in offers(&contract.pool, &contract.services) {
        let names = services.entry(offer.namespace.clone()).or_default();
        let name = offer.method.parent_service().full_name().to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let contracts = services.into_iter().map(|(namespace, services)| {
        let parsed = namespace.parse();
        let parsed =
            parsed.map_err(|source| OfferedError::Namespace { namespace: namespace.clone(), source })?;
        Ok((parsed, Contract { pool: contract.pool.clone(), services }))
    });
    contracts.collect()
}
