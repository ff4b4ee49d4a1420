//! The cache policy of one RPC, from its contract.

use std::{fmt, sync::Arc, time::Duration};

use drawbridge_proto::mcp::v1::{self as mcp, cache_policy};

const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const TAGS_MAX: usize = 16;
const TAG_BYTES_MAX: usize = 64;

/// How results of one RPC are cached.
#[derive(Debug)]
pub(crate) struct CacheRule {
    /// The tool's or resource's name.
    pub(crate) item: String,
    pub(super) contract: [u8; 32],
    pub(crate) ttl: Duration,
    /// How long after `ttl` a stale result is served while it is refreshed.
    pub(super) stale: Duration,
    pub(crate) scope: SharingScope,
    pub(super) tags: Vec<CacheTag>,
}

/// How calls of one RPC read and change the cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallCaching {
    /// How results are cached, if they may be.
    pub(crate) rule: Option<Arc<CacheRule>>,
    /// The tags of the cached results that a call invalidates.
    pub(crate) invalidates: Vec<CacheTag>,
}

/// Who shares a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SharingScope {
    Private,
    Tenant,
    Public,
}

/// Why results are not cached although the contract asks for it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CacheRuleError {
    #[error("only a tool that is read-only and idempotent may have `cache`")]
    Writes,
    #[error(
        "`ttl` and `stale_while_revalidate` must be at most one day, and `ttl` greater than zero"
    )]
    Duration,
    #[error(transparent)]
    Tag(#[from] CacheTagError),
}

/// Tag names that break the format.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid tags: expected at most {TAGS_MAX}, each 1 to {TAG_BYTES_MAX} of the characters \
     a-z A-Z 0-9 _ - ."
)]
pub(crate) struct CacheTagError;

/// A tag of one service's results. Services do not share tags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CacheTag(Arc<str>);

impl CacheTag {
    /// The tags of these names in a namespace.
    pub(crate) fn all(namespace: &str, names: &[String]) -> Result<Vec<Self>, CacheTagError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let is_tag =
            |name: &String| (1..=TAG_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
        if names.len() > TAGS_MAX || !names.iter().all(is_tag) {
            return Err(CacheTagError);
        }
        let mut tags: Vec<_> =
            names.iter().map(|name| Self(format!("{namespace}/{name}").into())).collect();
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    /// A tag as Redis stores it.
    pub(super) fn from_stored(text: String) -> Self {
        Self(text.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CacheRule {
    /// Reads the option of a method. `contract` identifies the contract it is part of.
    pub(crate) fn new(
        item: &str,
        namespace: &str,
        contract: [u8; 32],
        policy: &mcp::CachePolicy,
    ) -> Result<Self, CacheRuleError> {
        let duration = |value: Option<prost_types::Duration>| {
            let value = Duration::try_from(value.unwrap_or_default())
                .map_err(|_| CacheRuleError::Duration)?;
            if value <= DURATION_MAX { Ok(value) } else { Err(CacheRuleError::Duration) }
        };
        let (ttl, stale) = (duration(policy.ttl)?, duration(policy.stale_while_revalidate)?);
        if ttl.is_zero() {
            return Err(CacheRuleError::Duration);
        }
        Ok(Self {
            item: item.to_owned(),
            contract,
            ttl,
            stale,
            scope: match policy.scope() {
                cache_policy::Scope::Unspecified | cache_policy::Scope::Private => {
                    SharingScope::Private
                }
                cache_policy::Scope::Tenant => SharingScope::Tenant,
                cache_policy::Scope::Public => SharingScope::Public,
            },
            tags: CacheTag::all(namespace, &policy.tags)?,
        })
    }
}
