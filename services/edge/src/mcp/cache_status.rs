//! How a response reports the cache.

use std::time::Duration;

use rmcp::model::{CacheScope, MetaObject};
use serde_json::json;

use crate::traffic::cache::{CacheRule, SharingScope};

/// The `_meta` key that reports a cache hit, and the age of the entry.
const META_CACHE: &str = "drawbridge/cache";

/// The cache status of a result that may be cached.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheStatus {
    /// The age of the entry. `None`: the result was fetched for this call.
    age: Option<Duration>,
    /// How long the result stays fresh.
    fresh_for: Duration,
    scope: SharingScope,
}

impl CacheStatus {
    /// A result from the cache.
    pub(super) fn hit(rule: &CacheRule, age: Duration) -> Self {
        Self { age: Some(age), fresh_for: rule.ttl.saturating_sub(age), scope: rule.scope }
    }

    /// A result that was fetched `age` ago, and may be cached.
    pub(super) fn miss(rule: &CacheRule, age: Duration) -> Self {
        Self { age: None, ..Self::hit(rule, age) }
    }

    /// A result that is not cached now.
    pub(super) fn bypass(rule: &CacheRule) -> Self {
        Self { age: None, fresh_for: Duration::ZERO, scope: rule.scope }
    }
}

/// MCP's `ttlMs` and `cacheScope`. MCP has no scope between one caller and all callers.
pub(super) fn hints(status: Option<CacheStatus>) -> (Option<u64>, Option<CacheScope>) {
    let fresh_for = status.map(|status| status.fresh_for).unwrap_or_default();
    let scope = match status.map(|status| status.scope) {
        Some(SharingScope::Public) => CacheScope::Public,
        _ => CacheScope::Private,
    };
    (Some(millis(fresh_for)), Some(scope))
}

/// Adds the cache status to the metadata of a result.
pub(super) fn with_meta(
    meta: Option<MetaObject>,
    status: Option<CacheStatus>,
) -> Option<MetaObject> {
    let Some(status) = status else { return meta };
    let mut meta = meta.unwrap_or_default();
    let report = match status.age {
        Some(age) => json!({ "hit": true, "ageMs": millis(age) }),
        None => json!({ "hit": false }),
    };
    meta.insert(META_CACHE.to_owned(), report);
    Some(meta)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
