//! Transaction tokens: signed here, verified by every tool service
//! (draft-ietf-oauth-transaction-tokens).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use drawbridge_proto::auth::v1 as pb;
use drawbridge_runtime::RequestId;
use drawbridge_transport::transaction_token::{
    Actor, Principal, SubjectFacts, TransactionClaims, TransactionContext, message_digest,
};
use jsonwebtoken::encode;

use crate::{Identity, authn::AccessToken};

pub use self::timing::KeyTiming;
pub(crate) use self::{keyring::Keyring, peers::KeyPeers, subject_token::SubjectToken};

mod keyring;
mod peers;
mod publication;
mod rotation;
mod subject_token;
#[cfg(test)]
mod tests;
mod timing;

/// How long verifiers may cache the keys.
const KEYS_MAX_AGE: Duration = Duration::from_secs(60);
/// The maximum total length of groups, roles and other facts in bytes: a token is sent in a header.
const FACTS_BYTES_MAX: usize = 4 * 1024;
/// The shortest lifetime of a key. It is published, used and withdrawn within it.
pub(crate) const ROTATION_SECONDS_MIN: i64 = 300;

/// A token or its key could not be created.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The system provides no randomness.
    #[error("cannot generate a key pair")]
    KeyPair,
    /// The public key could not be exported.
    #[error("cannot export the public key")]
    PublicKey(#[source] jsonwebtoken::errors::Error),
    /// The token could not be signed.
    #[error("cannot sign")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// The service that calls on behalf of the subject.
#[derive(Clone, Debug)]
pub(crate) struct Delegation {
    /// The calling service, with its own callers.
    pub(crate) actor: Actor,
    /// The id of the request that started the call chain.
    pub(crate) txn: String,
}

/// The messages for which a transaction token is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageBinding {
    /// Any message: no arguments could have changed the decision.
    AnyMessage,
    /// The message with this SHA-256.
    Message([u8; 32]),
}

/// Signs transaction tokens.
pub(crate) struct Minter {
    issuer: String,
    ttl: Duration,
    keyring: Arc<Keyring>,
}

impl Minter {
    pub(crate) fn new(issuer: &str, ttl: Duration, keyring: Arc<Keyring>) -> Self {
        Self { issuer: issuer.to_owned(), ttl, keyring }
    }

    /// Signs the token that authorizes the holder of `token` for the RPC of `item` and the messages
    /// of `binding` only.
    ///
    /// A delegated token expires no later than the token that its actor was called with. Otherwise
    /// a service that was called once could extend its authority by exchanging tokens forever.
    pub(crate) fn mint(
        &self,
        token: &AccessToken,
        item: &pb::CatalogItem,
        binding: MessageBinding,
        request_id: &RequestId,
        delegation: Option<&Delegation>,
    ) -> Result<pb::TransactionToken, MintError> {
        let principal = &token.identity.principal;
        let now = SystemTime::now();
        let ends = UNIX_EPOCH + Duration::from_secs(token.expires_at);
        let expires = if delegation.is_some() { ends.min(now + self.ttl) } else { now + self.ttl };
        let tenant = Some(principal.tenant.clone()).filter(|tenant| !tenant.is_empty());
        let claims = TransactionClaims {
            iss: self.issuer.clone(),
            aud: item.service.clone(),
            sub: principal.subject.clone(),
            iat: seconds(now),
            exp: seconds(expires),
            txn: delegation
                .map_or_else(|| request_id.to_string(), |delegation| delegation.txn.clone()),
            scope: principal.scopes.join(" "),
            tctx: TransactionContext {
                iss: principal.issuer.clone(),
                principal: Principal::new(&principal.issuer, &principal.subject, tenant.as_deref()),
                tenant,
                client_id: principal.client_id.clone(),
                tool: item.name.clone(),
                rpc: item.rpc.clone(),
                message_sha256: match binding {
                    MessageBinding::AnyMessage => None,
                    MessageBinding::Message(sha256) => Some(message_digest(&sha256)),
                },
                facts: facts(token),
            },
            act: delegation.map(|delegation| Box::new(delegation.actor.clone())),
        };
        let signing = self.keyring.signing();
        let token = encode(&signing.header, &claims, &signing.key)?;
        Ok(pb::TransactionToken { token, expires_at: Some(expires.into()) })
    }
}

/// The subject's attributes that policies read, unless they are too large for a header. They are
/// omitted entirely rather than in part: a policy may forbid something to an omitted group.
fn facts(token: &AccessToken) -> Option<SubjectFacts> {
    let Identity { principal: _, groups, roles, email, mfa, workload } = &token.identity;
    let texts = groups.iter().chain(roles).chain(email).chain(&token.id);
    let bytes: usize = texts.map(String::len).sum();
    (bytes <= FACTS_BYTES_MAX).then(|| SubjectFacts {
        groups: groups.clone(),
        roles: roles.clone(),
        email: email.clone(),
        mfa: *mfa,
        workload: *workload,
        token_id: token.id.clone(),
        issued_at: token.issued_at,
    })
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
