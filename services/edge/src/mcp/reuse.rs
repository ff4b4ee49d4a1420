//! What a client is told of the cache.

use std::time::Duration;

use rmcp::model::{CacheScope, MetaObject};
use serde_json::json;

use crate::traffic::cache::{Rule, Scope};

/// The `_meta` key that tells whether a result was kept, and how old it is.
const META_CACHE: &str = "drawbridge/cache";

/// What the cache had to do with a result that may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reuse {
    /// How old it is. None: it was fetched for this call.
    age: Option<Duration>,
    /// How long it is fresh.
    left: Duration,
    scope: Scope,
}

impl Reuse {
    /// A result that was kept.
    pub(super) fn kept(rule: &Rule, age: Duration) -> Self {
        Self { age: Some(age), left: rule.ttl.saturating_sub(age), scope: rule.scope }
    }

    /// One that was fetched, `age` ago, and may be kept.
    pub(super) fn fetched(rule: &Rule, age: Duration) -> Self {
        Self { age: None, ..Self::kept(rule, age) }
    }

    /// One that nobody keeps now.
    pub(super) fn passed(rule: &Rule) -> Self {
        Self { age: None, left: Duration::ZERO, scope: rule.scope }
    }
}

/// MCP's `ttlMs` and `cacheScope`. MCP has no scope between one caller and everybody.
pub(super) fn hints(reuse: Option<Reuse>) -> (Option<u64>, Option<CacheScope>) {
    let left = reuse.map(|reuse| reuse.left).unwrap_or_default();
    let scope = match reuse.map(|reuse| reuse.scope) {
        Some(Scope::Public) => CacheScope::Public,
        _ => CacheScope::Private,
    };
    (Some(millis(left)), Some(scope))
}

/// The metadata of a result, which says whether it was kept.
pub(super) fn meta(meta: Option<MetaObject>, reuse: Option<Reuse>) -> Option<MetaObject> {
    let Some(reuse) = reuse else { return meta };
    let mut meta = meta.unwrap_or_default();
    let told = match reuse.age {
        Some(age) => json!({ "hit": true, "ageMs": millis(age) }),
        None => json!({ "hit": false }),
    };
    meta.insert(META_CACHE.to_owned(), told);
    Some(meta)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
