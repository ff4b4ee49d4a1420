//! One limit: whom it counts, and what a request costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_proto::auth::v1::Principal;
use http::HeaderValue;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::gcra::Quota;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    /// One issuer and subject.
    Principal,
    /// One tenant; callers without one, by their issuer.
    Tenant,
    /// One OAuth client of one issuer.
    Client,
    /// One tool, whoever calls it.
    Tool,
    /// All tools of one `rate_class`, whoever calls them.
    ToolClass,
    /// One network address, of whoever is not authenticated.
    Address,
    /// Everybody who is authenticated.
    Global,
}

/// What a limit does when Redis gives no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WithoutRedis {
    /// Each replica counts its share.
    #[default]
    Local,
    /// Nothing passes.
    Closed,
}

/// The calls that a limit is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Only {
    #[serde(default)]
    pub(super) tools: BTreeSet<String>,
    #[serde(default)]
    pub(super) classes: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) by: By,
    /// Absent: every request.
    pub(super) only: Option<Only>,
    /// What tools cost that do not cost 1.
    pub(super) cost: BTreeMap<String, u64>,
    /// Of all replicas together.
    pub(super) quota: Quota,
    /// Of this replica alone.
    pub(super) share: Quota,
    pub(super) without_redis: WithoutRedis,
    /// The value of `RateLimit-Policy`.
    pub(super) policy: HeaderValue,
}

/// Whose bucket it is: a digest, so that nobody's name stands in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket([u8; 16]);

/// A request as limits see it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted<'a> {
    /// Nobody is known to be calling.
    Address(IpAddr),
    /// An authenticated caller.
    Caller { principal: &'a Principal, tool: Option<CalledTool<'a>> },
}

/// The tool that a request calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CalledTool<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
}

/// What a request asks of one limit.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) limit: Arc<Limit>,
    pub(super) bucket: Bucket,
    pub(super) cost: u64,
}

impl Bucket {
    /// Whoever has none of their own. No digest is likely to be it.
    pub(super) const NOBODY: Self = Self([0; 16]);

    fn of(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let mut bucket = [0; 16];
        bucket.copy_from_slice(&digest.finalize()[..16]);
        Self(bucket)
    }

    pub(super) fn text(&self) -> String {
        BASE64.encode(self.0)
    }
}

impl Limit {
    /// What this request asks of the limit, where it is one that the limit counts.
    pub(super) fn ask(self: &Arc<Self>, counted: &Counted<'_>) -> Option<Ask> {
        let (bucket, cost) = match (self.by, counted) {
            (By::Address, Counted::Address(address)) => (Bucket::of(&[&network(*address)]), 1),
            (By::Address, Counted::Caller { .. }) | (_, Counted::Address(_)) => return None,
            (by, Counted::Caller { principal, tool }) => {
                if !self.only.as_ref().is_none_or(|only| only.holds(*tool)) {
                    return None;
                }
                let cost = tool.and_then(|tool| self.cost.get(tool.name).copied()).unwrap_or(1);
                (bucket(by, principal, *tool)?, cost)
            }
        };
        (cost > 0).then(|| Ask { limit: Arc::clone(self), bucket, cost })
    }

    /// Whether what is left of it tells of nobody else.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.by, By::Principal | By::Address)
    }
}

impl Only {
    fn holds(&self, tool: Option<CalledTool<'_>>) -> bool {
        tool.is_some_and(|tool| self.tools.contains(tool.name) || self.classes.contains(tool.class))
    }
}

fn bucket(by: By, principal: &Principal, tool: Option<CalledTool<'_>>) -> Option<Bucket> {
    let Principal { issuer, subject, client_id, tenant, .. } = principal;
    let parts: &[&str] = match by {
        By::Principal => &[issuer, subject],
        By::Tenant if tenant.is_empty() => &["", issuer],
        By::Tenant => &[tenant],
        By::Client => &[issuer, client_id],
        By::Tool => &[tool?.name],
        By::ToolClass => &[tool.map(|tool| tool.class).filter(|class| !class.is_empty())?],
        By::Address | By::Global => &[],
    };
    let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
    Some(Bucket::of(&parts))
}

/// What counts as one address: of IPv6 the network, in which a host has all addresses to itself.
pub(crate) fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets()[..8].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_v4_address_or_a_v6_network() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
    }

    #[test]
    fn callers_share_a_bucket_when_the_limit_says_so() {
        let person = |issuer: &str, subject: &str, tenant: &str| Principal {
            issuer: issuer.into(),
            subject: subject.into(),
            tenant: tenant.into(),
            client_id: "client".into(),
            ..Default::default()
        };
        let (alice, bob) =
            (person("https://idp", "alice", "acme"), person("https://idp", "bob", "acme"));
        let (other, stranger) =
            (person("https://evil", "alice", ""), person("https://idp", "carol", ""));
        let same = |by, one, two| bucket(by, one, None) == bucket(by, two, None);
        assert!(!same(By::Principal, &alice, &bob) && !same(By::Principal, &alice, &other));
        assert!(same(By::Tenant, &alice, &bob) && !same(By::Tenant, &alice, &stranger));
        assert!(!same(By::Tenant, &other, &stranger));
        assert!(same(By::Client, &alice, &bob) && !same(By::Client, &alice, &other));
        assert!(same(By::Global, &alice, &other));
        assert!(bucket(By::Tool, &alice, None).is_none());
    }
}
