//! The configuration of the edge: tool services by flags and file, and the other settings of the
//! file.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use drawbridge_config::{Namespace, NamespaceError};
use drawbridge_runtime::{GrpcUrl, ParseUrlError};
use drawbridge_transport::SpiffeId;
use url::Url;

pub use self::{
    file::check_config,
    named::{NamedServices, named_services},
};
pub(crate) use self::{
    file::{ConfigFile, ConfigSources, ParsedConfig, RuntimePolicy, lock_path, parse},
    record::record_change,
    reloadable::Reloadable,
};

mod file;
mod named;
mod record;
mod reloadable;

/// A tool service and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its gRPC address.
    pub url: Url,
}

/// A text is not a `namespace=URL`.
#[derive(Debug, thiserror::Error)]
pub enum ServiceAddressError {
    /// The equals sign is missing.
    #[error("invalid tool service (expected `namespace=URL`)")]
    Form,
    /// The namespace is invalid.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The URL is invalid.
    #[error(transparent)]
    Url(#[from] ParseUrlError),
}

impl FromStr for ServiceAddress {
    type Err = ServiceAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, url) = text.split_once('=').ok_or(ServiceAddressError::Form)?;
        Ok(Self { namespace: namespace.parse()?, url: url.parse::<GrpcUrl>()?.0 })
    }
}

/// The tool services that the edge offers.
pub(crate) type Services = BTreeMap<Namespace, ServiceSettings>;

/// The addresses of a tool service, and how it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceSettings {
    /// Its replicas, or names that resolve to them.
    pub(crate) urls: Vec<Url>,
    /// How long a call may take without progress. Absent: the default of all services.
    pub(crate) timeout: Option<Duration>,
    /// The file with its contract. Absent: gRPC reflection.
    pub(crate) descriptor_set: Option<PathBuf>,
    /// Its required SPIFFE id. Absent: a sibling of the edge's own id, with the namespace as last
    /// segment.
    pub(crate) spiffe_id: Option<SpiffeId>,
}

/// The services that do not come from the config file.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtherServices {
    /// Those of flags.
    pub(crate) flags: Services,
    /// Whether more of them are discovered, so that the file may name any.
    pub(crate) are_discovered: bool,
}

impl From<Services> for OtherServices {
    fn from(flags: Services) -> Self {
        Self { flags, are_discovered: false }
    }
}

/// The services that flags name. A repeated namespace has several replicas.
pub(crate) fn from_flags(addresses: &[ServiceAddress]) -> Services {
    let mut services = Services::new();
    for ServiceAddress { namespace, url } in addresses {
        services.entry(namespace.clone()).or_default().urls.push(url.clone());
    }
    services
}
