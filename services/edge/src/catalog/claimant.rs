//! The RPC that claims a name.

use drawbridge_proto::auth::v1 as auth;

/// An RPC of a tool service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claimant {
    pub(crate) service: String,
    pub(crate) rpc: String,
}

impl From<&auth::CatalogItem> for Claimant {
    fn from(item: &auth::CatalogItem) -> Self {
        Self { service: item.service.clone(), rpc: item.rpc.clone() }
    }
}
