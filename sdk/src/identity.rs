//! Transaction tokens: who is calling, inside the mesh (draft-ietf-oauth-transaction-tokens).
//!
//! Auth signs them; every tool service verifies them offline, on every RPC.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, get_current_timestamp};
use moka::sync::Cache;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{
    ChannelError, Peers, SpiffeId,
    fetch::{Fetcher, NetworkScope},
    jwks::{Jwks, JwksError, Limits, Source},
};

mod principal;

pub use principal::Principal;

/// The `typ` of a transaction token.
pub const TOKEN_TYPE: &str = "txntoken+jwt";
/// The algorithm that signs transaction tokens.
pub const ALGORITHM: Algorithm = Algorithm::EdDSA;
/// How many verified tokens are remembered, and for how long: no longer than any lives.
const VERIFIED_MAX: u64 = 20_000;
const VERIFIED_FOR: Duration = Duration::from_secs(60);
/// Clock difference that is forgiven, in seconds.
const LEEWAY_SECONDS: u64 = 5;

/// What a transaction token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionClaims {
    /// The auth service that signed it.
    pub iss: String,
    /// The one tool service it is for.
    pub aud: String,
    /// The subject, at the issuer that `tctx.iss` names.
    pub sub: String,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// The id of the request that caused it.
    pub txn: String,
    /// The scopes of the caller's token, space-separated.
    pub scope: String,
    /// What it is for.
    pub tctx: TransactionContext,
    /// Who calls in the subject's name. Absent: the subject itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

/// A service that calls in a subject's name (RFC 8693 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The issuer that vouches for it.
    pub iss: String,
    /// Who it is, at that issuer.
    pub sub: String,
    /// Who called it in the same subject's name. Absent: the subject itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Self>>,
}

/// What a transaction token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionContext {
    /// The issuer that vouches for the subject.
    pub iss: String,
    /// Issuer, subject and tenant in one, for Vault, which takes its user from one claim.
    pub principal: Principal,
    /// The tenant, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The OAuth client through which the subject calls.
    pub client_id: String,
    /// The tool, resource or prompt.
    pub tool: String,
    /// The one RPC it opens, `package.Service/Method`.
    pub rpc: String,
    /// The only message that it opens the RPC for: the SHA-256 of the encoded protobuf message, without its gRPC frame,
    /// as base64url without padding. Absent: any message, because no arguments could have changed the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_sha256: Option<String>,
    /// What else policies read of the subject. Absent: it would be too much, and nobody may act for the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

/// What the subject's own token says of it. Auth reads it again when a service acts for the subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Groups that the token names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Roles that the token names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The person's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether the person showed more than one factor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mfa: bool,
    /// A program that calls in its own name, rather than a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workload: bool,
    /// The token's `jti`, by which it may be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// When the token was issued, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
}

/// Who is calling an RPC. A handler takes it from the request's extensions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the transaction token says.
    pub claims: Arc<TransactionClaims>,
    /// The token itself. A handler exchanges it at auth to call another service in the caller's name, and credentials
    /// are got with it.
    pub token: Arc<SecretString>,
}

impl Caller {
    /// The caller of this request, if it was verified.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Issuer, subject and tenant in one.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.claims.tctx.principal
    }

    /// Checks that the token opens the RPC for this encoded protobuf message. A [`GrpcServer`](crate::GrpcServer) that
    /// is a tool service does so on every call.
    ///
    /// # Errors
    /// When auth has decided on another message.
    pub fn check_message(&self, message: &[u8]) -> Result<(), IdentityError> {
        match &self.claims.tctx.message_sha256 {
            Some(decided) if *decided != message_digest(&Sha256::digest(message)) => {
                Err(IdentityError::OtherMessage)
            }
            _ => Ok(()),
        }
    }
}

/// Why a transaction token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none.
    #[error("the call carries no transaction token")]
    Missing,
    /// It is malformed, expired, for another service or not signed by auth.
    #[error("the transaction token is not valid here")]
    Invalid(#[source] Option<jsonwebtoken::errors::Error>),
    /// There is more than one: who checks one of them may not be who uses it.
    #[error("the call carries more than one value of {0}")]
    Ambiguous(&'static str),
    /// It is for another RPC.
    #[error("the transaction token is for another RPC")]
    OtherRpc,
    /// It is for another message to the same RPC.
    #[error("the transaction token is for another message")]
    OtherMessage,
    /// Auth's keys cannot be had.
    #[error("the keys of transaction tokens cannot be had")]
    Keys(#[source] JwksError),
}

/// Verifies transaction tokens for one tool service.
#[derive(Debug)]
pub struct Verifier {
    jwks: Jwks,
    validation: Validation,
    /// Tokens that were found good, by their digest: the edge shows one with several calls.
    verified: Cache<[u8; 32], Caller>,
}

/// A verifier could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The platform's certificates cannot be read.
    #[error("cannot make an HTTP client for auth's keys")]
    Http(#[from] reqwest::Error),
    /// The keys are not to be had from there.
    #[error("cannot get auth's keys")]
    Url(#[from] ChannelError),
}

impl Verifier {
    /// A verifier for the service `audience` with the keys at `jwks_url`, for tokens signed by `issuer`. In plaintext the
    /// keys come by loopback alone.
    ///
    /// # Errors
    /// When the URL is not one to get keys from.
    pub fn new(audience: &str, issuer: &str, jwks_url: Url) -> Result<Self, VerifierError> {
        Self::by(&Peers::default(), None, audience, issuer, jwks_url)
    }

    /// As [`Self::new`], with the keys from auth, by mTLS where there is a certificate: whoever could give other keys could
    /// be anybody.
    ///
    /// # Errors
    /// When the URL is not one to get keys from.
    pub fn by(
        peers: &Peers,
        auth_id: Option<&SpiffeId>,
        audience: &str,
        issuer: &str,
        jwks_url: Url,
    ) -> Result<Self, VerifierError> {
        let mut validation = Validation::new(ALGORITHM);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.leeway = LEEWAY_SECONDS;
        let source = if peers.secures(&jwks_url) {
            let mut origin = jwks_url.clone();
            origin.set_path("");
            Source::Peer(jwks_url, peers.connect(&origin, "auth", auth_id)?)
        } else {
            if jwks_url.scheme() != "https" {
                peers.allow_plaintext_to(&jwks_url)?;
            }
            // Auth is inside the network.
            Source::Url(jwks_url, Fetcher::new(NetworkScope::Anywhere)?)
        };
        let verified =
            Cache::builder().max_capacity(VERIFIED_MAX).time_to_live(VERIFIED_FOR).build();
        Ok(Self { jwks: Jwks::new(source, Limits::default()), validation, verified })
    }

    /// Verifies the token of a call to `rpc`.
    ///
    /// # Errors
    /// When there is no token, or it is not one that auth signed for this service, this RPC and now.
    pub async fn verify(&self, token: Option<&str>, rpc: &str) -> Result<Caller, IdentityError> {
        let token = token.ok_or(IdentityError::Missing)?;
        let digest = Sha256::digest(token).into();
        let caller = match self.verified.get(&digest).filter(|caller| caller.claims.exp > now()) {
            Some(caller) => caller,
            None => {
                let caller = self.verify_anew(token).await?;
                self.verified.insert(digest, caller.clone());
                caller
            }
        };
        if caller.claims.tctx.rpc != rpc {
            return Err(IdentityError::OtherRpc);
        }
        Ok(caller)
    }

    async fn verify_anew(&self, token: &str) -> Result<Caller, IdentityError> {
        let header = decode_header(token).map_err(|error| IdentityError::Invalid(Some(error)))?;
        if header.typ.as_deref() != Some(TOKEN_TYPE) || header.alg != ALGORITHM {
            return Err(IdentityError::Invalid(None));
        }
        let id = header.kid.ok_or(IdentityError::Invalid(None))?;
        let key = self.jwks.key(&id).await.map_err(|error| match error {
            JwksError::UnknownKey => IdentityError::Invalid(None),
            error => IdentityError::Keys(error),
        })?;
        if !key.verifies(ALGORITHM) {
            return Err(IdentityError::Invalid(None));
        }
        let claims = decode::<TransactionClaims>(token, &key.key, &self.validation)
            .map_err(|error| IdentityError::Invalid(Some(error)))?
            .claims;
        Ok(Caller { claims: Arc::new(claims), token: Arc::new(token.into()) })
    }
}

/// How a transaction token writes the SHA-256 of a message: as base64url without padding.
#[must_use]
pub fn message_digest(sha256: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sha256)
}

/// Seconds since 1970.
fn now() -> i64 {
    get_current_timestamp().cast_signed()
}
