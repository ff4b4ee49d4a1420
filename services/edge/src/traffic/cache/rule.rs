//! What a contract says of keeping the results of one RPC.

use std::{fmt, sync::Arc, time::Duration};

use drawbridge_proto::mcp::v1::{self as mcp, cache_policy};

const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const TAGS_MAX: usize = 16;
const TAG_BYTES_MAX: usize = 64;

/// How results of one RPC are kept.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The tool's or resource's name.
    pub(crate) item: String,
    pub(super) contract: [u8; 32],
    pub(crate) ttl: Duration,
    /// For how long after that a result is answered with while it is fetched anew.
    pub(super) stale: Duration,
    pub(crate) scope: Scope,
    pub(super) tags: Vec<Tag>,
}

/// Who shares a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Private,
    Tenant,
    Public,
}

/// Why results are not kept although the contract asks for it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RuleError {
    #[error("only a tool that is read-only and idempotent may have `cache`")]
    Writes,
    #[error(
        "`ttl` and `stale_while_revalidate` must be a day at most, and `ttl` more than nothing"
    )]
    Duration,
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// Texts that cannot be tags.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there are at most {TAGS_MAX} tags, each of 1 to {TAG_BYTES_MAX} of the characters a-z A-Z 0-9 _ - ."
)]
pub(crate) struct TagError;

/// A tag of one service's results. Services do not share theirs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(Arc<str>);

impl Tag {
    /// The tags of these names in a namespace.
    pub(crate) fn all(namespace: &str, names: &[String]) -> Result<Vec<Self>, TagError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let is_tag =
            |name: &String| (1..=TAG_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
        if names.len() > TAGS_MAX || !names.iter().all(is_tag) {
            return Err(TagError);
        }
        let mut tags: Vec<_> =
            names.iter().map(|name| Self(format!("{namespace}/{name}").into())).collect();
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    /// As Redis has it.
    pub(super) fn read(text: String) -> Self {
        Self(text.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Rule {
    /// Reads what a method's option says. `contract` tells its contract from all others.
    pub(crate) fn new(
        item: &str,
        namespace: &str,
        contract: [u8; 32],
        policy: &mcp::CachePolicy,
    ) -> Result<Self, RuleError> {
        let duration = |given: Option<prost_types::Duration>| {
            let given =
                Duration::try_from(given.unwrap_or_default()).map_err(|_| RuleError::Duration)?;
            if given <= DURATION_MAX { Ok(given) } else { Err(RuleError::Duration) }
        };
        let (ttl, stale) = (duration(policy.ttl)?, duration(policy.stale_while_revalidate)?);
        if ttl.is_zero() {
            return Err(RuleError::Duration);
        }
        Ok(Self {
            item: item.to_owned(),
            contract,
            ttl,
            stale,
            scope: match policy.scope() {
                cache_policy::Scope::Unspecified | cache_policy::Scope::Private => Scope::Private,
                cache_policy::Scope::Tenant => Scope::Tenant,
                cache_policy::Scope::Public => Scope::Public,
            },
            tags: Tag::all(namespace, &policy.tags)?,
        })
    }
}
