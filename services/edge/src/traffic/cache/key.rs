//! What finds a result again: a digest of all that it may depend on.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_sdk::identity::{Actor, Facts, TransactionClaims, TransactionContext};
use prost_reflect::{DynamicMessage, SerializeOptions};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::rule::{Rule, Scope};

/// Changes with what an entry or a key is made of.
const FORMAT: &[u8] = b"1";
/// 64-bit integers are texts: RFC 8785 knows numbers as doubles, of which two could be one.
const JSON: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .skip_default_fields(false)
    .stringify_64_bit_integers(true);

/// A digest that tells nobody who or what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
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

/// What a result depends on.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) rule: &'a Rule,
    /// `package.Service/Method`.
    pub(super) rpc: &'a str,
    pub(super) message: &'a DynamicMessage,
    /// Absent where it does not matter who calls.
    pub(super) caller: Option<&'a TransactionClaims>,
    /// In which it was allowed: another follows a change of policies, keys or revocations.
    pub(super) epoch: u64,
}

/// Makes keys. Replicas that share a secret make the same.
#[derive(Debug)]
pub(super) struct Keys(hmac::Key);

impl Keys {
    pub(super) fn new(secret: &SecretString) -> Self {
        // The label keeps this key apart from whatever else is made of the secret.
        let key = Sha256::new()
            .chain_update(b"drawbridge cache keys\0")
            .chain_update(secret.expose_secret());
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key.finalize()))
    }

    /// The key of what is asked, while its tags are in these generations. None: it has no canonical form.
    pub(super) fn key(&self, asked: &Asked<'_>, generations: &[String]) -> Option<Key> {
        let Asked { rule, rpc, message, caller, epoch } = *asked;
        let mut digest = hmac::Context::with_key(&self.0);
        let mut add = |part: &[u8]| {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        add(FORMAT);
        add(rpc.as_bytes());
        add(rule.item.as_bytes());
        add(&rule.contract);
        add(&epoch.to_be_bytes());
        add(&sharers(rule.scope, caller)?);
        add(&canonical(message)?);
        generations.iter().for_each(|generation| add(generation.as_bytes()));
        let tag = digest.sign();
        Some(Key(tag.as_ref().try_into().ok()?))
    }
}

/// A message as canonical JSON (RFC 8785).
fn canonical(message: &DynamicMessage) -> Option<Vec<u8>> {
    let json = message.serialize_with_options(serde_json::value::Serializer, &JSON).ok()?;
    serde_json_canonicalizer::to_vec(&json).ok()
}

/// Whom a result is for.
fn sharers(scope: Scope, caller: Option<&TransactionClaims>) -> Option<Vec<u8>> {
    if scope == Scope::Public {
        return serde_json::to_vec(&Sharers::Public).ok();
    }
    let caller = caller?;
    let tenant = caller.tctx.tenant.as_deref().filter(|tenant| !tenant.is_empty());
    let sharers = match (scope, tenant) {
        (Scope::Tenant, Some(tenant)) => Sharers::Tenant { issuer: &caller.tctx.iss, tenant },
        // Who has no tenant shares with nobody.
        _ => Sharers::Caller(Box::new(Seen::of(caller))),
    };
    serde_json::to_vec(&sharers).ok()
}

#[derive(Serialize)]
enum Sharers<'a> {
    Public,
    Tenant { issuer: &'a str, tenant: &'a str },
    Caller(Box<Seen<'a>>),
}

/// A caller as a tool service sees it, without what is another for each call or token.
#[derive(Serialize)]
struct Seen<'a> {
    issuer: &'a str,
    subject: &'a str,
    tenant: Option<&'a str>,
    client: &'a str,
    scope: &'a str,
    actor: Option<&'a Actor>,
    facts: Option<SeenFacts<'a>>,
}

#[derive(Serialize)]
struct SeenFacts<'a> {
    groups: &'a [String],
    roles: &'a [String],
    email: Option<&'a str>,
    mfa: bool,
    workload: bool,
}

impl<'a> Seen<'a> {
    /// Names every claim, so that none that is added to tokens is forgotten here.
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
            let Facts { groups, roles, email, mfa, workload, token_id: _, issued_at: _ } = facts;
            SeenFacts { groups, roles, email: email.as_deref(), mfa: *mfa, workload: *workload }
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

/// What a transaction token says. It is auth's own, for this very call, and is not verified again.
pub(super) fn claims(token: &SecretString) -> Option<TransactionClaims> {
    let payload = token.expose_secret().split('.').nth(1)?;
    serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()
}
