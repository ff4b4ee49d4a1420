//! Transaction tokens: signed here, verified by every tool service
//! (draft-ietf-oauth-transaction-tokens).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::signature::Ed25519KeyPair;
use drawbridge_proto::auth::v1 as pb;
use drawbridge_runtime::RequestId;
use drawbridge_transport::transaction_token::{
    ALGORITHM, Actor, Principal, SubjectFacts, TOKEN_TYPE, TransactionClaims, TransactionContext,
    message_digest,
};
use jsonwebtoken::{
    EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Identity, authn::AccessToken};

pub(crate) use self::subject_token::SubjectToken;

mod subject_token;
#[cfg(test)]
mod tests;

/// How long verifiers may cache the keys.
pub(crate) const KEYS_MAX_AGE: Duration = Duration::from_secs(60);
/// Time between publication of a key and its first use: verifiers refresh their caches within it.
const LEAD: Duration = Duration::from_secs(90);
/// Added to a token's lifetime before its key is withdrawn, to allow for clock skew.
const GRACE: Duration = Duration::from_secs(30);
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

/// When keys are published and withdrawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    /// How long a key signs.
    every: Duration,
    /// How long it is published before.
    lead: Duration,
    /// How long it is published afterwards.
    retire: Duration,
}

impl Rotation {
    /// A new key every `every`, for tokens with lifetime `ttl`.
    pub(crate) fn new(every: Duration, ttl: Duration) -> Self {
        Self { every, lead: LEAD, retire: ttl + GRACE }
    }
}

/// A signing key. It never leaves the process.
struct SigningKey {
    key: EncodingKey,
    header: Header,
    public: Jwk,
}

impl SigningKey {
    fn generate() -> Result<Self, MintError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| MintError::KeyPair)?;
        let document = pair.to_pkcs8v1().map_err(|_| MintError::KeyPair)?;
        let key = EncodingKey::from_ed_der(document.as_ref());
        let mut public = Jwk::from_encoding_key(&key, ALGORITHM).map_err(MintError::PublicKey)?;
        let id = public.thumbprint(ThumbprintHash::SHA256).map_err(MintError::PublicKey)?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let mut header = Header::new(ALGORITHM);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid = Some(id);
        Ok(Self { key, header, public })
    }
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
    signing: ArcSwap<SigningKey>,
    published: ArcSwap<JwkSet>,
}

impl Minter {
    pub(crate) fn new(issuer: &str, ttl: Duration) -> Result<Self, MintError> {
        let key = SigningKey::generate()?;
        Ok(Self {
            issuer: issuer.to_owned(),
            ttl,
            published: ArcSwap::from_pointee(JwkSet { keys: vec![key.public.clone()] }),
            signing: ArcSwap::from_pointee(key),
        })
    }

    /// The public keys: the signing key, and temporarily the previous and the next one.
    pub(crate) fn jwks(&self) -> JwkSet {
        JwkSet::clone(&self.published.load())
    }

    /// Rotates the key until `stopping`: publishes the next key, signs with it, then withdraws the
    /// previous one. A verifier that respects KEYS_MAX_AGE never sees an unknown key.
    pub(crate) async fn rotate(&self, rotation: Rotation, stopping: CancellationToken) {
        let Rotation { every, lead, retire } = rotation;
        let rotating = async {
            let mut signs_until = Instant::now() + every;
            loop {
                tokio::time::sleep_until(signs_until - lead).await;
                let next = match SigningKey::generate() {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::error!(
                            %error,
                            "cannot generate the next key for transaction tokens; \
                             the current key remains in use"
                        );
                        signs_until += lead;
                        continue;
                    }
                };
                let (old, new) = (self.signing.load().public.clone(), next.public.clone());
                self.publish(vec![old, new.clone()]);
                tokio::time::sleep(lead).await;
                self.signing.store(next.into());
                signs_until = Instant::now() + every;
                tracing::info!(kid = new.common.key_id, "rotated the key of transaction tokens");
                tokio::time::sleep(retire).await;
                self.publish(vec![new]);
            }
        };
        stopping.run_until_cancelled(rotating).await;
    }

    fn publish(&self, keys: Vec<Jwk>) {
        self.published.store(JwkSet { keys }.into());
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
        let signing = self.signing.load();
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
