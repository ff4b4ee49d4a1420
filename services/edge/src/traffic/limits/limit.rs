//! One limit: which requests it counts, and their cost.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_config::edge::{LimitBy, ToolFilter, WithoutRedis};
use drawbridge_proto::auth::v1::Principal;
use drawbridge_runtime::length_prefixed;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::gcra::Quota;

#[derive(Debug)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) by: LimitBy,
    /// Absent: every request.
    pub(super) only: Option<ToolFilter>,
    /// The costs of tools that do not cost 1.
    pub(super) cost: BTreeMap<String, u64>,
    /// The quota of all replicas together.
    pub(super) quota: Quota,
    /// The quota of this replica while Redis is unavailable.
    pub(super) share: Quota,
    pub(super) without_redis: WithoutRedis,
    /// The value of `RateLimit-Policy`.
    pub(super) policy: HeaderValue,
}

/// Identifies a bucket: a digest, so that Redis stores no names of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BucketKey([u8; 16]);

/// The caller to whose limits a request is charged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// An unauthenticated client.
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

/// The charge of a request to one limit.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub(super) limit: Arc<Limit>,
    pub(super) bucket: BucketKey,
    pub(super) cost: u64,
}

impl BucketKey {
    /// The bucket that callers share once a limit has too many buckets. No digest equals it in
    /// practice.
    pub(super) const OVERFLOW: Self = Self([0; 16]);

    fn of(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            length_prefixed(part, |bytes| digest.update(bytes));
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
    /// The charge of a request, if the limit counts it.
    pub(super) fn charge(self: &Arc<Self>, subject: &Subject<'_>) -> Option<Charge> {
        let (bucket, cost) = match (self.by, subject) {
            (LimitBy::Address, Subject::Address(address)) => {
                (BucketKey::of(&[&network_prefix(*address)]), 1)
            }
            (LimitBy::Address, Subject::Caller { .. }) | (_, Subject::Address(_)) => return None,
            (by, Subject::Caller { principal, tool }) => {
                if !self.only.as_ref().is_none_or(|only| selects(only, *tool)) {
                    return None;
                }
                let cost = tool.and_then(|tool| self.cost.get(tool.name).copied()).unwrap_or(1);
                (bucket_key(by, principal, *tool)?, cost)
            }
        };
        (cost > 0).then(|| Charge { limit: Arc::clone(self), bucket, cost })
    }

    /// Whether it rejects the requests of every caller while Redis is unavailable.
    pub(super) fn is_closed_to_all(&self) -> bool {
        let counts_all = match self.by {
            LimitBy::Principal | LimitBy::Tenant | LimitBy::Client | LimitBy::Global => true,
            LimitBy::Address | LimitBy::Tool | LimitBy::ToolClass => false,
        };
        self.without_redis == WithoutRedis::Closed && self.only.is_none() && counts_all
    }

    /// Whether its remaining quota reveals nothing about other callers.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.by, LimitBy::Principal | LimitBy::Address)
    }
}

fn selects(filter: &ToolFilter, tool: Option<CalledTool<'_>>) -> bool {
    tool.is_some_and(|tool| filter.tools.contains(tool.name) || filter.classes.contains(tool.class))
}

fn bucket_key(
    by: LimitBy,
    principal: &Principal,
    tool: Option<CalledTool<'_>>,
) -> Option<BucketKey> {
    let Principal { issuer, subject, client_id, tenant, .. } = principal;
    let parts: &[&str] = match by {
        LimitBy::Principal => &[issuer, subject],
        LimitBy::Tenant if tenant.is_empty() => &["", issuer],
        LimitBy::Tenant => &[tenant],
        LimitBy::Client => &[issuer, client_id],
        LimitBy::Tool => &[tool?.name],
        LimitBy::ToolClass => &[tool.map(|tool| tool.class).filter(|class| !class.is_empty())?],
        LimitBy::Address | LimitBy::Global => &[],
    };
    let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
    Some(BucketKey::of(&parts))
}

/// The octets that identify a client: an IPv4 address, or the /64 network of an IPv6 address, all
/// of which one host may use.
pub(crate) fn network_prefix(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets()[..8].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ipv4_address_or_an_ipv6_network() {
        let prefix = |text: &str| network_prefix(text.parse().unwrap());
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::ffff:2"));
        assert_ne!(prefix("2001:db8::1"), prefix("2001:db8:0:1::1"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.2.2"));
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.1"));
    }

    #[test]
    fn callers_share_a_bucket_as_the_limit_configures() {
        let person = |issuer: &str, subject: &str, tenant: &str| Principal {
            issuer: issuer.into(),
            subject: subject.into(),
            tenant: tenant.into(),
            client_id: "client".into(),
            ..Default::default()
        };
        let (alice, bob) =
            (person("https://idp", "alice", "acme"), person("https://idp", "bob", "acme"));
        let (other, carol) =
            (person("https://evil", "alice", ""), person("https://idp", "carol", ""));
        let same = |by, one, two| bucket_key(by, one, None) == bucket_key(by, two, None);
        assert!(
            !same(LimitBy::Principal, &alice, &bob) && !same(LimitBy::Principal, &alice, &other)
        );
        assert!(same(LimitBy::Tenant, &alice, &bob) && !same(LimitBy::Tenant, &alice, &carol));
        assert!(!same(LimitBy::Tenant, &other, &carol));
        assert!(same(LimitBy::Client, &alice, &bob) && !same(LimitBy::Client, &alice, &other));
        assert!(same(LimitBy::Global, &alice, &other));
        assert!(bucket_key(LimitBy::Tool, &alice, None).is_none());
    }
}
