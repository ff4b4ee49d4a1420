//! What clients would see of some services, found out without an edge that runs: for the catalog
//! lock.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawbridge_sdk::{
    BalancedChannel, ChannelError, ConfigText, ConfigTextError, Peers, contract::offers,
    reflection::Contract,
};
use url::Url;

use crate::{
    catalog::discovery::{ContractError, contract},
    catalog::{Catalog, CatalogLock, Namespace, NamespaceError, Pins, Terms, read_contract},
    config::{Services, lock_path, parse},
};

/// What clients would see.
#[derive(Debug)]
pub struct Offered {
    /// Where the config file says that it is locked.
    pub file: Option<PathBuf>,
    catalog: Catalog,
    terms: Terms,
}

/// What there is to lock.
#[derive(Debug)]
pub struct Lockable {
    /// What clients would see.
    pub lock: CatalogLock,
    /// What they would not, because another service claims its name or one of its URIs: a sentence
    /// for each, which names both.
    pub conflicts: Vec<String>,
}

impl Offered {
    /// What there is to lock, where names stay with the services that `before` gives them to.
    #[must_use]
    pub fn lockable(&self, before: CatalogLock) -> Lockable {
        let pins = Some(Arc::new(Pins::owners(before)));
        let catalog = self.catalog.on(&Terms { pins, ..self.terms.clone() });
        let conflicts = catalog.conflicts().iter().map(ToString::to_string).collect();
        Lockable { lock: catalog.lock(), conflicts }
    }
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

/// What clients would see of these contracts or, without any, of the services that a config file
/// names.
///
/// # Errors
/// When the file or a contract cannot be read.
pub async fn offered(
    config: Option<&Path>,
    peers: &Peers,
    contracts: &[Contract],
) -> Result<Offered, OfferedError> {
    let text = config.map(ConfigText::read).transpose()?;
    let said =
        text.as_ref().map(|text| parse(text, &Services::new())).transpose()?.unwrap_or_default();
    let mut found = Vec::new();
    for one in contracts {
        found.extend(by_namespace(one)?);
    }
    if contracts.is_empty() {
        for (namespace, settings) in &said.services {
            let id = settings.spiffe_id.as_ref();
            let channel = peers.balanced(&settings.urls, namespace.as_str(), id)?;
            let read = contract(settings, &channel).await;
            let read = read.map_err(|source| OfferedError::Contract {
                namespace: namespace.clone(),
                source,
            })?;
            found.push((namespace.clone(), read));
        }
    }
    // Nothing is called: any address will do.
    let nowhere: Vec<Url> = "http://127.0.0.1:1".parse().into_iter().collect();
    let channel = BalancedChannel::new(&nowhere)?;
    let namespaces =
        said.services.keys().chain(found.iter().map(|(namespace, _)| namespace)).cloned().collect();
    let terms = Terms { view: Arc::new(said.view), pins: None, namespaces: Arc::new(namespaces) };
    let nothing = Catalog::default().on(&terms);
    let catalog = found.into_iter().fold(nothing, |catalog, (namespace, contract)| {
        let service = read_contract(&namespace, &contract, &channel, Duration::ZERO);
        catalog.with(namespace, service)
    });
    Ok(Offered { file: text.as_ref().and_then(lock_path), catalog, terms })
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
        let parsed = parsed
            .map_err(|source| OfferedError::Namespace { namespace: namespace.clone(), source })?;
        Ok((parsed, Contract { pool: contract.pool.clone(), services }))
    });
    contracts.collect()
}
