//! Revocation of access tokens. They are JWTs and valid without this server, so auth must revoke
//! them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, revoke_response::Outcome, token_set::Which,
};
use drawbridge_runtime::{RequestId, backoff::ReconnectDelays};
use drawbridge_transport::{CallContext, status_text};
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::{grant::IssuedToken, keys::SigningKey, unix_time};

/// The subject of this server's own tokens, and the group that policies permit to revoke.
const NAME: &str = "drawbridge-idp";
const GROUP: &str = "authorization-server";
/// The lifetime of its own tokens, in seconds.
const OWN_TOKEN_SECONDS: u64 = 60;
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the response to a reused code or refresh token is delayed for the revocation.
const WAIT: Duration = Duration::from_secs(3);

/// Why auth did not revoke.
#[derive(Debug, thiserror::Error)]
enum RevokeError {
    #[error("cannot sign a token for auth")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("auth is unavailable: {}", status_text(.0))]
    Call(Box<tonic::Status>),
    #[error("auth rejected the request: {0}")]
    Refused(String),
}

/// The claims of this server's own token.
#[derive(Serialize)]
struct OwnClaims<'a> {
    iss: &'a str,
    sub: &'static str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    nbf: u64,
    jti: Uuid,
    client_id: &'static str,
    gty: &'static str,
    groups: [&'static str; 1],
}

/// Revokes access tokens through auth.
pub(crate) struct Revoker {
    pub(crate) auth: Channel,
    /// The audience of tokens for auth.
    pub(crate) audience: String,
    pub(crate) issuer: String,
    pub(crate) key: Arc<SigningKey>,
    /// Cancelled when this server stops.
    pub(crate) stopping: CancellationToken,
}

impl Revoker {
    /// Revokes tokens. Failed revocations are retried in the background until the tokens expire.
    pub(crate) async fn revoke(self: Arc<Self>, tokens: Vec<IssuedToken>) {
        let stopping = self.stopping.clone();
        let revoking = tokio::spawn(async move {
            let all = async {
                for token in tokens {
                    self.revoke_one(&token).await;
                }
            };
            stopping.run_until_cancelled(all).await
        });
        drop(timeout(WAIT, revoking).await);
    }

    async fn revoke_one(&self, token: &IssuedToken) {
        let mut delays = ReconnectDelays::default();
        while token.expires > Instant::now() {
            match self.call(token.id).await {
                Ok(()) => {
                    tracing::info!(token_id = %token.id, "revoked an access token");
                    return;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        token_id = %token.id,
                        error,
                        "cannot revoke an access token yet"
                    );
                }
            }
            delays.wait().await;
        }
    }

    async fn call(&self, id: Uuid) -> Result<(), RevokeError> {
        let now = unix_time::seconds_since_1970();
        let own = self.key.sign(&OwnClaims {
            iss: &self.issuer,
            sub: NAME,
            aud: &self.audience,
            exp: now + OWN_TOKEN_SECONDS,
            iat: now,
            nbf: now,
            jti: Uuid::new_v4(),
            client_id: NAME,
            gty: "client-credentials",
            groups: [GROUP],
        })?;
        let tokens = pb::TokenSet {
            issuer: self.issuer.clone(),
            which: Some(Which::TokenId(id.to_string())),
        };
        let request = pb::RevokeRequest { subject_token: own, tokens: Some(tokens) };
        let context = CallContext::new(RequestId::generate(), CALL_TIMEOUT);
        let mut auth = AuthServiceClient::new(self.auth.clone());
        let response = auth.revoke(context.outgoing(request)).await;
        let response = response.map_err(|status| RevokeError::Call(Box::new(status)))?;
        match response.into_inner().outcome {
            Some(Outcome::Revoked(_)) => Ok(()),
            Some(Outcome::Unauthenticated(reason)) => Err(RevokeError::Refused(reason.description)),
            Some(Outcome::Denied(denied)) => Err(RevokeError::Refused(denied.reason)),
            None => Err(RevokeError::Refused("no outcome".to_owned())),
        }
    }
}
