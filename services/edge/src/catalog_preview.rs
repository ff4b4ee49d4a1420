//! Previews the catalog of some services without a running edge, for the catalog lock.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawbridge_config::{ConfigError, ConfigText, Namespace, NamespaceError};
use drawbridge_contract::{Contract, exposed_methods};
use drawbridge_transport::{BalancedChannel, ChannelError, Peers};
use url::Url;

use crate::{
    catalog::{Catalog, CatalogConfig, CatalogLock, LockEnforcer, read_contract},
    config::{OtherServices, lock_path, parse},
    discovery::{ContractError, load_contract},
};

/// The catalog that an edge would offer.
#[derive(Debug)]
pub struct CatalogPreview {
    /// The path of the lock that the config file names.
    pub file: Option<PathBuf>,
    catalog: Catalog,
    config: CatalogConfig,
}

/// A lock of the catalog, and what it omits.
#[derive(Debug)]
pub struct LockProposal {
    /// The items that clients would see.
    pub lock: CatalogLock,
    /// A sentence per item that is omitted because another service claims its name or one of its
    /// URIs. It names both services.
    pub conflicts: Vec<String>,
}

impl CatalogPreview {
    /// Proposes a lock in which names stay with the services that own them in `before`.
    #[must_use]
    pub fn propose_lock(&self, before: CatalogLock) -> LockProposal {
        let lock = Some(Arc::new(LockEnforcer::names_only(before)));
        let catalog = self.catalog.with_config(&CatalogConfig { lock, ..self.config.clone() });
        let conflicts = catalog.conflicts().iter().map(ToString::to_string).collect();
        LockProposal { lock: catalog.lock(), conflicts }
    }
}

/// The catalog could not be previewed.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The config file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address of a service is invalid.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A contract names an invalid namespace.
    #[error("invalid namespace {namespace:?}")]
    Namespace {
        /// The namespace.
        namespace: String,
        /// Why it is invalid.
        source: NamespaceError,
    },
    /// The contract of a service could not be read.
    #[error("cannot read the contract of the service {namespace}")]
    Contract {
        /// The service.
        namespace: Namespace,
        /// The cause.
        source: ContractError,
    },
}

/// Previews the catalog of these contracts or, without any, of the services that a config file
/// names.
///
/// # Errors
/// When the file or a contract cannot be read.
pub async fn preview_catalog(
    config: Option<&Path>,
    peers: &Peers,
    contracts: &[Contract],
) -> Result<CatalogPreview, PreviewError> {
    let text = config.map(ConfigText::read).transpose()?;
    let config = text
        .as_ref()
        .map(|text| parse(text, &OtherServices::default()))
        .transpose()?
        .unwrap_or_default();
    let mut found = Vec::new();
    for one in contracts {
        found.extend(by_namespace(one)?);
    }
    if contracts.is_empty() {
        for (namespace, settings) in &config.services {
            let id = settings.spiffe_id.as_ref();
            let channel = peers.balanced(&settings.urls, namespace.as_str(), id)?;
            let read = load_contract(settings, &channel).await;
            let read = read.map_err(|source| PreviewError::Contract {
                namespace: namespace.clone(),
                source,
            })?;
            found.push((namespace.clone(), read));
        }
    }
    // Nothing is called, so any address suffices.
    let unused: Vec<Url> = "http://127.0.0.1:1".parse().into_iter().collect();
    let channel = BalancedChannel::new(&unused)?;
    let namespaces = config
        .services
        .keys()
        .chain(found.iter().map(|(namespace, _)| namespace))
        .cloned()
        .collect();
    let catalog_config = CatalogConfig {
        overlay: Arc::new(config.overlay),
        lock: None,
        namespaces: Arc::new(namespaces),
        awaits_services: false,
    };
    let empty = Catalog::default().with_config(&catalog_config);
    let catalog = found.into_iter().fold(empty, |catalog, (namespace, contract)| {
        let service = read_contract(&namespace, &contract, &channel, Duration::ZERO);
        catalog.with(namespace, service)
    });
    Ok(CatalogPreview { file: text.as_ref().and_then(lock_path), catalog, config: catalog_config })
}

/// Splits a contract by the namespaces that its services name.
fn by_namespace(contract: &Contract) -> Result<Vec<(Namespace, Contract)>, PreviewError> {
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for offer in exposed_methods(&contract.pool, &contract.services) {
        let names = services.entry(offer.namespace.clone()).or_default();
        let name = offer.method.parent_service().full_name().to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let contracts = services.into_iter().map(|(namespace, services)| {
        let parsed = namespace.parse();
        let parsed = parsed
            .map_err(|source| PreviewError::Namespace { namespace: namespace.clone(), source })?;
        Ok((parsed, Contract { pool: contract.pool.clone(), services }))
    });
    contracts.collect()
}
