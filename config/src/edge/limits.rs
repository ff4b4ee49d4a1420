use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bounded, Name, Spanned};

/// The highest rate. A unit takes a whole number of microseconds, rounded up: at this rate the
/// error is a tenth at most.
pub const LIMIT_RATE_PER_SECOND_MAX: u64 = 100_000;
/// The longest time of a limit, a year: times stay exact in Redis, whose Lua has floating-point
/// numbers only.
pub const LIMIT_SECONDS_MAX: u64 = 366 * 24 * 3600;

/// Settings of all rate limits.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsTable {
    /// The replicas of the edge. Without Redis, each counts its share of a limit.
    pub replicas: Bounded<1, 10_000>,
    /// How long a request waits for Redis, in milliseconds.
    pub redis_timeout_ms: Bounded<1, 5000>,
}

impl Default for LimitsTable {
    fn default() -> Self {
        Self { replicas: Bounded::new(1), redis_timeout_ms: Bounded::new(50) }
    }
}

/// A rate limit: a token bucket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitEntry {
    /// The name in headers, errors and metrics. An edit preserves what was counted under the same
    /// name.
    pub name: Spanned<Name>,
    /// Whose requests are counted together.
    pub by: Spanned<LimitBy>,
    /// Requests in `per_seconds`; at most 100000 in a second.
    pub rate: Bounded<1, { LIMIT_RATE_PER_SECOND_MAX * LIMIT_SECONDS_MAX }>,
    /// The seconds in which `rate` requests may pass.
    #[serde(default = "one_second")]
    pub per_seconds: Bounded<1, LIMIT_SECONDS_MAX>,
    /// How many requests may pass at once. Default: `rate`.
    pub burst: Option<Bounded<1, { u64::MAX }>>,
    /// Count only calls of these tools. Default: every request.
    pub only: Option<ToolFilter>,
    /// The cost of a call by tool. 0 consumes nothing. Default: 1.
    #[serde(default)]
    pub cost: BTreeMap<String, Spanned<u64>>,
    /// What the limit does while Redis is unavailable.
    #[serde(default)]
    pub without_redis: WithoutRedis,
}

fn one_second() -> Bounded<1, LIMIT_SECONDS_MAX> {
    Bounded::new(1)
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitBy {
    /// One issuer and subject.
    Principal,
    /// One tenant; callers without one, by their issuer.
    Tenant,
    /// One OAuth client of one issuer.
    Client,
    /// One tool, for all callers.
    Tool,
    /// All tools of one `rate_class`, for all callers.
    ToolClass,
    /// One network address of unauthenticated requests.
    Address,
    /// All authenticated callers.
    Global,
}

/// What a limit does while Redis is unavailable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithoutRedis {
    /// Each replica enforces its share.
    #[default]
    Local,
    /// Every request is rejected.
    Closed,
}

/// The calls that a limit counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ToolFilter {
    /// Tools, by the names that their services give them.
    pub tools: BTreeSet<String>,
    /// Rate classes, as the contracts of tools declare them.
    pub classes: BTreeSet<String>,
}
