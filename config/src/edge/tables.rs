use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Bounded, Spanned};

/// A number of calls or requests.
type Count = Bounded<1, 100_000>;

/// Calls and requests at the same time, on this replica.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConcurrencyTable {
    /// Running calls of one principal, on all tool services.
    pub calls_per_principal: Count,
    /// Running calls on one tool service.
    pub calls_per_service: Count,
    /// Overrides `calls_per_service`, by namespace.
    pub service: BTreeMap<Spanned<String>, Count>,
    /// Queued calls of one principal.
    pub waiting_per_principal: Count,
    /// Queued calls of one tool service.
    pub waiting_per_service: Count,
    /// The longest wait of a call in a queue, and before it of a request, in milliseconds.
    pub wait_ms: Bounded<1, 60_000>,
    /// Requests in progress while this replica is not overloaded.
    pub requests_max: Count,
    /// Requests in progress while this replica is overloaded. Default: 64, or `requests_max` if
    /// that is lower.
    pub requests_min: Option<Count>,
    /// Queued requests.
    pub requests_waiting: Count,
}

impl Default for ConcurrencyTable {
    fn default() -> Self {
        Self {
            calls_per_principal: Count::new(64),
            calls_per_service: Count::new(512),
            service: BTreeMap::new(),
            waiting_per_principal: Count::new(64),
            waiting_per_service: Count::new(1024),
            wait_ms: Bounded::new(1000),
            requests_max: Count::new(4096),
            requests_min: None,
            requests_waiting: Count::new(1024),
        }
    }
}

/// The response cache.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheTable {
    /// Whether results are cached. `false`: every call goes to its service.
    pub enabled: bool,
    /// The size of all entries in the memory of this process, in bytes.
    pub bytes_max: Bounded<1, { 1 << 40 }>,
    /// The largest result that is cached, in bytes.
    pub entry_bytes_max: Bounded<1, { 16 * 1024 * 1024 }>,
    /// How long a call waits for Redis, in milliseconds.
    pub redis_timeout_ms: Bounded<1, 5000>,
}

impl Default for CacheTable {
    fn default() -> Self {
        Self {
            enabled: true,
            bytes_max: Bounded::new(64 * 1024 * 1024),
            entry_bytes_max: Bounded::new(256 * 1024),
            redis_timeout_ms: Bounded::new(50),
        }
    }
}
