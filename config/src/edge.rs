//! The edge's config file. docs/reference/edge-config.md describes it.

use std::path::PathBuf;

use drawbridge_runtime::GrpcUrl;
use drawbridge_transport::SpiffeId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    guard::{GUARD_BYTES_MIN, GuardEntry, GuardKindName, PatternClass, PatternEntry},
    limits::{
        LIMIT_RATE_PER_SECOND_MAX, LIMIT_SECONDS_MAX, LimitBy, LimitEntry, LimitsTable, ToolFilter,
        WithoutRedis,
    },
    tables::{CacheTable, ConcurrencyTable},
    tool::{ArgumentsTable, ServerEntry, ToolEntry},
};
use crate::{Bounded, Namespace, Spanned};

mod guard;
mod limits;
mod tables;
mod tool;

/// The edge's config file: what an operator changes at run time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "edge.toml")]
pub struct EdgeFile {
    /// Tool services and their addresses.
    pub services: Vec<ServiceEntry>,
    /// Settings of all rate limits.
    pub limits: LimitsTable,
    /// Rate limits.
    pub limit: Vec<LimitEntry>,
    /// Calls and requests at the same time, on this replica.
    pub concurrency: ConcurrencyTable,
    /// The response cache.
    pub cache: CacheTable,
    /// Guards on content, which apply in this order.
    pub guard: Vec<GuardEntry>,
    /// How tools differ from what their services offer.
    pub tool: Vec<ToolEntry>,
    /// Virtual servers.
    pub server: Vec<ServerEntry>,
    /// The catalog lock.
    pub catalog: Option<CatalogTable>,
    /// Which `_meta` keys reach clients.
    pub meta: MetaTable,
}

/// A tool service and its addresses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceEntry {
    /// Its namespace, with which the names of its items begin.
    pub namespace: Spanned<Namespace>,
    /// The addresses of its replicas, or one name that resolves to them: `https://` with mTLS,
    /// `http://` for loopback, or `unix:/path`.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub urls: Vec<GrpcUrl>,
    /// How long a call may take without progress, in milliseconds. Default: the edge's
    /// `--call-timeout-ms`.
    pub timeout_ms: Option<Bounded<1, { u64::MAX }>>,
    /// The file with its contract, a descriptor set, relative to this file. Default: gRPC
    /// reflection.
    pub descriptor_set: Option<PathBuf>,
    /// Its required SPIFFE id. Default: the namespace beside the edge's own id.
    #[schemars(with = "Option<String>")]
    pub spiffe_id: Option<SpiffeId>,
}

/// The catalog lock: the reviewed version of everything that clients see.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogTable {
    /// The lock, relative to this file.
    pub lock: PathBuf,
    /// How an item that violates the lock is handled.
    #[serde(default)]
    pub mode: LockMode,
}

/// How an item that violates the lock is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// It is offered with a flag in its `_meta`.
    Warn,
    /// It is withheld.
    #[default]
    Enforce,
}

/// Which `_meta` keys of tools, resources and results reach clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetaTable {
    /// Keys; a trailing `*` matches all keys with this prefix. Default: the documented keys.
    pub allow: Option<Vec<String>>,
}
