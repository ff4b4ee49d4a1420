//! Which tool services there are, by flags and by file.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use drawbridge_sdk::{GrpcUrl, SpiffeId, UrlTextError};
use url::Url;

use crate::catalog::{Namespace, NamespaceError};

pub use self::named::{NamedServices, named_services};
pub(crate) use self::{
    file::{ConfigFile, Duties, Said, Texts, lock_path, parse},
    live::Live,
};

mod file;
mod live;
mod named;

/// A tool service and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its gRPC address.
    pub url: Url,
}

/// A text that is no `namespace=URL`.
#[derive(Debug, thiserror::Error)]
pub enum ServiceAddressError {
    /// The equals sign is missing.
    #[error("a tool service is given as namespace=URL")]
    Form,
    /// The namespace is not one.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The URL is not one.
    #[error(transparent)]
    Url(#[from] UrlTextError),
}

impl FromStr for ServiceAddress {
    type Err = ServiceAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, url) = text.split_once('=').ok_or(ServiceAddressError::Form)?;
        Ok(Self { namespace: namespace.parse()?, url: url.parse::<GrpcUrl>()?.0 })
    }
}

/// The tool services that the edge is to offer.
pub(crate) type Services = BTreeMap<Namespace, ServiceSettings>;

/// Where a tool service is, and how it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceSettings {
    /// Its replicas, or names that resolve to them.
    pub(crate) urls: Vec<Url>,
    /// How long a call may take when its tool says nothing. Absent: as for all services.
    pub(crate) timeout: Option<Duration>,
    /// The file that holds its contract. Absent: the service is asked by reflection.
    pub(crate) descriptor_set: Option<PathBuf>,
    /// Who it must be. Absent: whoever stands beside the edge under its namespace.
    pub(crate) spiffe_id: Option<SpiffeId>,
}

/// The services that flags name. A namespace that is given more than once has several replicas.
pub(crate) fn from_flags(addresses: &[ServiceAddress]) -> Services {
    let mut services = Services::new();
    for ServiceAddress { namespace, url } in addresses {
        services.entry(namespace.clone()).or_default().urls.push(url.clone());
    }
    services
}
