//! Transaction tokens, which identify the caller inside the mesh
//! (draft-ietf-oauth-transaction-tokens).
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
    jwks::{Jwks, JwksError, JwksLimits, KeySource},
};

mod principal;

pub use principal::Principal;

/// The `typ` of a transaction token.
pub const TOKEN_TYPE: &str = "txntoken+jwt";
/// The algorithm that signs transaction tokens.
pub const ALGORITHM: Algorithm = Algorithm::EdDSA;
/// How many verified tokens are cached, and for how long: not longer than any of them lives.
const VERIFIED_MAX: u64 = 20_000;
const VERIFIED_TTL: Duration = Duration::from_secs(60);
/// The clock skew that is tolerated, in seconds.
const LEEWAY_SECONDS: u64 = 5;

/// The claims of a transaction token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionClaims {
    /// The auth service that signed it.
    pub iss: String,
    /// The only tool service that accepts it.
    pub aud: String,
    /// The subject, at the issuer `tctx.iss`.
    pub sub: String,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// The id of the request that caused it.
    pub txn: String,
    /// The scopes of the caller's token, space-separated.
    pub scope: String,
    /// What it is for.
    pub tctx: TransactionContext,
    /// The service that acts for the subject. Absent: the subject itself calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

/// A service that acts for a subject (RFC 8693 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// Its issuer.
    pub iss: String,
    /// Its subject at that issuer.
    pub sub: String,
    /// The previous actor for the same subject. Absent: the subject itself called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Self>>,
}

/// What a transaction token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionContext {
    /// The subject's issuer.
    pub iss: String,
    /// Issuer, subject and tenant in one text, for Vault, which identifies a user by one claim.
    pub principal: Principal,
    /// The tenant, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The OAuth client through which the subject calls.
    pub client_id: String,
    /// The tool, resource or prompt.
    pub tool: String,
    /// The only RPC that it authorizes, `package.Service/Method`.
    pub rpc: String,
    /// The only message that it authorizes: the SHA-256 of the encoded protobuf message, without
    /// its gRPC frame, as base64url without padding. Absent: any message, because no arguments
    /// could have changed the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_sha256: Option<String>,
    /// Further attributes of the subject for policies. Absent: they were too large, and no service
    /// may act for the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<SubjectFacts>,
}

/// Attributes from the subject's own token. Auth reads them again when a service acts for the
/// subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectFacts {
    /// Groups from the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Roles from the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The person's email address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether the person authenticated with more than one factor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mfa: bool,
    /// Whether the subject is a program that calls in its own name, rather than a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workload: bool,
    /// The token's `jti`, by which it may be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// When the token was issued, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
}

/// The verified caller of an RPC. A handler takes it from the request's extensions.
#[derive(Clone, Debug)]
pub struct VerifiedCaller {
    /// The claims of the transaction token.
    pub claims: Arc<TransactionClaims>,
    /// The token itself. A handler exchanges it at auth to call another service on behalf of the
    /// caller, and requests credentials with it.
    pub token: Arc<SecretString>,
}

impl VerifiedCaller {
    /// The caller of this request, if it was verified.
    pub fn from_request<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }

    /// The caller of this request to a tool service, which always has one.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when the caller was not verified.
    pub fn require<T>(request: &tonic::Request<T>) -> Result<&Self, tonic::Status> {
        Self::from_request(request)
            .ok_or_else(|| tonic::Status::unauthenticated("the caller was not verified"))
    }

    /// Whether a person calls directly: neither a program in its own name, nor a service that acts
    /// for a person. Only then are responses in the request the person's, because only the edge
    /// asks the person itself.
    #[must_use]
    pub fn is_person(&self) -> bool {
        let facts = self.claims.tctx.facts.as_ref();
        self.claims.act.is_none() && facts.is_some_and(|facts| !facts.workload)
    }

    /// Issuer, subject and tenant in one text.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.claims.tctx.principal
    }

    /// Checks that the token authorizes this encoded protobuf message. A
    /// [`GrpcServer`](crate::GrpcServer) that is a tool service does so on every call.
    ///
    /// # Errors
    /// When the token is for another message.
    pub fn check_message(&self, message: &[u8]) -> Result<(), TransactionTokenError> {
        match &self.claims.tctx.message_sha256 {
            Some(decided) if *decided != message_digest(&Sha256::digest(message)) => {
                Err(TransactionTokenError::OtherMessage)
            }
            _ => Ok(()),
        }
    }
}

/// Why a transaction token is rejected.
#[derive(Debug, thiserror::Error)]
pub enum TransactionTokenError {
    /// The call has none.
    #[error("the call carries no transaction token")]
    Missing,
    /// It is malformed, expired, for another service or not signed by auth.
    #[error("the transaction token is not valid here")]
    Invalid(#[source] Option<jsonwebtoken::errors::Error>),
    /// There is more than one value: the one that is checked might not be the one that is used.
    #[error("the call carries more than one value of {0}")]
    Ambiguous(&'static str),
    /// It is for another RPC.
    #[error("the transaction token is for another RPC")]
    OtherRpc,
    /// It is for another message to the same RPC.
    #[error("the transaction token is for another message")]
    OtherMessage,
    /// Auth's keys are unavailable.
    #[error("the keys of transaction tokens are unavailable")]
    Keys(#[source] JwksError),
}

impl TransactionTokenError {
    /// The word for logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid(_) => "invalid",
            Self::Ambiguous(_) => "ambiguous",
            Self::OtherRpc => "other_rpc",
            Self::OtherMessage => "other_message",
            Self::Keys(_) => "keys_unavailable",
        }
    }
}

/// Verifies transaction tokens for one tool service.
#[derive(Debug)]
pub struct Verifier {
    jwks: Jwks,
    validation: Validation,
    /// Verified tokens, by their digest: the edge uses one token for several calls.
    verified: Cache<[u8; 32], VerifiedCaller>,
}

/// A verifier could not be created.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The platform's certificates cannot be read.
    #[error("cannot create an HTTP client for auth's keys")]
    Http(#[from] reqwest::Error),
    /// Keys cannot be fetched from this URL.
    #[error("cannot fetch auth's keys")]
    Url(#[from] ChannelError),
}

impl Verifier {
    /// A verifier for the service `audience` with the keys at `jwks_url`, for tokens signed by
    /// `issuer`. Keys are fetched in plaintext only over loopback.
    ///
    /// # Errors
    /// When keys cannot be fetched from the URL.
    pub fn new(audience: &str, issuer: &str, jwks_url: Url) -> Result<Self, VerifierError> {
        Self::with_peers(&Peers::default(), None, audience, issuer, jwks_url)
    }

    /// As [`Self::new`], with keys from auth by mTLS if there is a certificate: a peer that could
    /// serve other keys could impersonate any caller.
    ///
    /// # Errors
    /// When keys cannot be fetched from the URL.
    pub fn with_peers(
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
        let source = if peers.uses_tls(&jwks_url) {
            let mut origin = jwks_url.clone();
            origin.set_path("");
            KeySource::Peer(jwks_url, peers.connect(&origin, "auth", auth_id)?)
        } else {
            if jwks_url.scheme() != "https" {
                peers.check_plaintext_allowed(&jwks_url)?;
            }
            // Auth is inside the network.
            KeySource::Url(jwks_url, Fetcher::new(NetworkScope::Anywhere)?)
        };
        let verified =
            Cache::builder().max_capacity(VERIFIED_MAX).time_to_live(VERIFIED_TTL).build();
        Ok(Self { jwks: Jwks::new(source, JwksLimits::default()), validation, verified })
    }

    /// Auth's keys.
    #[must_use]
    pub fn keys(&self) -> &Jwks {
        &self.jwks
    }

    /// Verifies the token of a call to `rpc`.
    ///
    /// # Errors
    /// When there is no token, or auth did not sign it for this service and this RPC, or it has
    /// expired.
    pub async fn verify(
        &self,
        token: Option<&str>,
        rpc: &str,
    ) -> Result<VerifiedCaller, TransactionTokenError> {
        let token = token.ok_or(TransactionTokenError::Missing)?;
        let digest = Sha256::digest(token).into();
        let caller =
            match self.verified.get(&digest).filter(|caller| caller.claims.exp > unix_now()) {
                Some(caller) => caller,
                None => {
                    let caller = self.verify_uncached(token).await?;
                    self.verified.insert(digest, caller.clone());
                    caller
                }
            };
        if caller.claims.tctx.rpc != rpc {
            return Err(TransactionTokenError::OtherRpc);
        }
        Ok(caller)
    }

    async fn verify_uncached(&self, token: &str) -> Result<VerifiedCaller, TransactionTokenError> {
        let header =
            decode_header(token).map_err(|error| TransactionTokenError::Invalid(Some(error)))?;
        if header.typ.as_deref() != Some(TOKEN_TYPE) || header.alg != ALGORITHM {
            return Err(TransactionTokenError::Invalid(None));
        }
        let id = header.kid.ok_or(TransactionTokenError::Invalid(None))?;
        let key = self.jwks.key(&id).await.map_err(|error| match error {
            JwksError::UnknownKey => TransactionTokenError::Invalid(None),
            error => TransactionTokenError::Keys(error),
        })?;
        if !key.verifies(ALGORITHM) {
            return Err(TransactionTokenError::Invalid(None));
        }
        let claims = decode::<TransactionClaims>(token, &key.key, &self.validation)
            .map_err(|error| TransactionTokenError::Invalid(Some(error)))?
            .claims;
        Ok(VerifiedCaller { claims: Arc::new(claims), token: Arc::new(token.into()) })
    }
}

/// Encodes the SHA-256 of a message as in a transaction token: base64url without padding.
#[must_use]
pub fn message_digest(sha256: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sha256)
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    get_current_timestamp().cast_signed()
}
