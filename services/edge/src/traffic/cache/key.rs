//! The key of a cached result: a digest of everything the result may depend on.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_contract::dynamic;
use drawbridge_runtime::length_prefixed;
use drawbridge_transport::transaction_token::{
    Actor, SubjectFacts, TransactionClaims, TransactionContext,
};
use prost_reflect::DynamicMessage;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::rule::{CacheRule, SharingScope};

/// Changes whenever the contents of an entry or a key change.
const FORMAT: &[u8] = b"2";

/// A keyed digest, which reveals neither caller nor arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey([u8; 32]);

impl CacheKey {
    #[cfg(test)]
    pub(super) const fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn text(&self) -> String {
        BASE64.encode(self.0)
    }
}

/// What a result depends on, besides the generations of its tags.
#[derive(Clone, Copy)]
pub(super) struct KeyInput<'a> {
    pub(super) rule: &'a CacheRule,
    /// `package.Service/Method`.
    pub(super) rpc: &'a str,
    pub(super) message: &'a DynamicMessage,
    /// Absent where the result is the same for every caller.
    pub(super) caller: Option<&'a TransactionClaims>,
    /// In which the call was allowed. A change of policies, keys or revocations begins another.
    pub(super) epoch: u64,
}

/// Derives cache keys. Replicas that share a secret derive the same ones.
#[derive(Debug)]
pub(super) struct KeyDeriver(hmac::Key);

impl KeyDeriver {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    /// The key of this call while its tags are in these generations. `None`: the message has no
    /// canonical form.
    pub(super) fn key(&self, input: &KeyInput<'_>, generations: &[String]) -> Option<CacheKey> {
        let KeyInput { rule, rpc, message, caller, epoch } = *input;
        let mut digest = hmac::Context::with_key(&self.0);
        let mut add = |part: &[u8]| length_prefixed(part, |bytes| digest.update(bytes));
        add(FORMAT);
        add(rpc.as_bytes());
        add(rule.item.as_bytes());
        add(&rule.contract);
        add(&epoch.to_be_bytes());
        add(&audience(rule.scope, caller)?);
        add(&canonical(message)?);
        generations.iter().for_each(|generation| add(generation.as_bytes()));
        let tag = digest.sign();
        Some(CacheKey(tag.as_ref().try_into().ok()?))
    }
}

/// A message as canonical JSON (RFC 8785). Its 64-bit integers are strings where a double could not
/// hold them, so no two messages have the same form.
fn canonical(message: &DynamicMessage) -> Option<Vec<u8>> {
    serde_json_canonicalizer::to_vec(&dynamic::to_json(message).ok()?).ok()
}

/// Who shares a result, encoded.
fn audience(scope: SharingScope, caller: Option<&TransactionClaims>) -> Option<Vec<u8>> {
    if scope == SharingScope::Public {
        return serde_json::to_vec(&Audience::Public).ok();
    }
    let caller = caller?;
    let tenant = caller.tctx.tenant.as_deref().filter(|tenant| !tenant.is_empty());
    let audience = match (scope, tenant) {
        (SharingScope::Tenant, Some(tenant)) => {
            Audience::Tenant { issuer: &caller.tctx.iss, tenant }
        }
        // A caller without a tenant shares with no other caller.
        _ => Audience::Caller(Box::new(CallerIdentity::of(caller))),
    };
    serde_json::to_vec(&audience).ok()
}

#[derive(Serialize)]
enum Audience<'a> {
    Public,
    Tenant { issuer: &'a str, tenant: &'a str },
    Caller(Box<CallerIdentity<'a>>),
}

/// A caller as a tool service sees it, without the claims that differ per call or token.
#[derive(Serialize)]
struct CallerIdentity<'a> {
    issuer: &'a str,
    subject: &'a str,
    tenant: Option<&'a str>,
    client: &'a str,
    scope: &'a str,
    actor: Option<&'a Actor>,
    facts: Option<CallerFacts<'a>>,
}

#[derive(Serialize)]
struct CallerFacts<'a> {
    groups: &'a [String],
    roles: &'a [String],
    email: Option<&'a str>,
    mfa: bool,
    workload: bool,
}

impl<'a> CallerIdentity<'a> {
    /// Destructures every claim, so that a new one must be considered here.
    fn of(claims: &'a TransactionClaims) -> Self {
        let TransactionClaims { iss: _, aud: _, sub, iat: _, exp: _, txn: _, scope, tctx, act } =
            claims;
        let TransactionContext {
            iss,
            principal: _,
            tenant,
            client_id,
            tool: _,
            rpc: _,
            message_sha256: _,
            facts,
        } = tctx;
        let facts = facts.as_ref().map(|facts| {
            let SubjectFacts { groups, roles, email, mfa, workload, token_id: _, issued_at: _ } =
                facts;
            CallerFacts { groups, roles, email: email.as_deref(), mfa: *mfa, workload: *workload }
        });
        Self {
            issuer: iss,
            subject: sub,
            tenant: tenant.as_deref(),
            client: client_id,
            scope,
            actor: act.as_deref(),
            facts,
        }
    }
}

/// The claims of a transaction token. Auth minted it for this very call; it is not verified again.
pub(super) fn claims(token: &SecretString) -> Option<TransactionClaims> {
    let payload = token.expose_secret().split('.').nth(1)?;
    serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()
}
