//! The keys of cached decisions.

use std::time::Duration;

use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use drawbridge_runtime::length_prefixed;
use prost_reflect::prost::Message as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// The longest time to live of a decision, even if auth permits more.
pub(super) const DECISION_TTL_MAX: Duration = Duration::from_secs(10);
/// Begins the digest of a list's key. That of an operation begins with 0 or 1.
const LIST_KEY: u8 = 2;

/// One list of one catalog.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemList {
    /// The operation on its items.
    pub(crate) kind: Kind,
    /// The number of the catalog: another catalog has another list.
    pub(crate) catalog: u64,
}

/// Identifies a decision: a digest, so that the cache stores no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DecisionKey([u8; 32]);

impl DecisionKey {
    /// The key does not include the arguments, because a decision that depends on them is not
    /// cached. It includes whether there are any.
    pub(super) fn new(token: &SecretString, resource: &str, operation: &pb::Operation) -> Self {
        let item = operation.item.as_ref().map(pb::CatalogItem::encode_to_vec).unwrap_or_default();
        let mut digest = Sha256::new();
        digest.update([u8::from(operation.arguments_json.is_some())]);
        digest.update(operation.kind.to_be_bytes());
        for part in [resource.as_bytes(), &item, token.expose_secret().as_bytes()] {
            length_prefixed(part, |bytes| digest.update(bytes));
        }
        Self(digest.finalize().into())
    }

    /// The key of what a caller may see of a list.
    pub(super) fn of_list(token: &SecretString, resource: &str, list: ItemList) -> Self {
        let mut digest = Sha256::new();
        digest.update([LIST_KEY]);
        digest.update(i32::from(list.kind).to_be_bytes());
        digest.update(list.catalog.to_be_bytes());
        for part in [resource.as_bytes(), token.expose_secret().as_bytes()] {
            length_prefixed(part, |bytes| digest.update(bytes));
        }
        Self(digest.finalize().into())
    }
}
