//! Authentication of requests to auth.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as pb, unverified::Reason};
use drawbridge_transport::Peer;
use tonic::{Request, Status};

use super::Api;
use crate::{
    authn::{AccessToken, ClientNetwork, TokenVerifier},
    metrics::{TOKENS_REFUSED, TOKENS_UNVERIFIED},
};

/// Why a token does not identify a caller.
pub(super) enum IdentifyError {
    /// The token is invalid.
    Token(pb::Unauthenticated),
    /// The token could not be verified.
    Unverified(Reason),
}

impl Api {
    /// Rejects callers other than edges. Only an edge may submit clients' access tokens.
    pub(super) fn require_edge<T>(&self, request: &Request<T>) -> Result<(), Status> {
        // Without mTLS no peer has an identity.
        let known = Peer::from_request(request).and_then(|peer| peer.id.as_ref());
        match known {
            Some(id) if !self.edges.contains(id) => {
                Err(Status::permission_denied("only an edge may call this RPC"))
            }
            _ => Ok(()),
        }
    }

    /// Rejects requests while tool services may not know the signing key.
    pub(super) fn require_signing(&self) -> Result<(), Status> {
        if self.peers.may_sign() {
            Ok(())
        } else {
            Err(Status::unavailable("the signing key is not published everywhere yet; retry"))
        }
    }

    /// Verifies a token that a client in `network` sent. The outer error means that the revocation
    /// list cannot be read.
    pub(super) async fn identify(
        &self,
        verifier: &TokenVerifier,
        token: &str,
        resource: &str,
        network: Option<ClientNetwork>,
    ) -> Result<Result<Arc<AccessToken>, IdentifyError>, Status> {
        let refused = |description: String| {
            TOKENS_REFUSED.get().increment(1);
            Ok(Err(IdentifyError::Token(pb::Unauthenticated { description })))
        };
        let token = match verifier.verify(token, resource, network).await {
            Ok(token) => token,
            Err(error) => match error.unverified() {
                Some(reason) => {
                    TOKENS_UNVERIFIED.with([reason.as_str_name().into()]).increment(1);
                    return Ok(Err(IdentifyError::Unverified(reason)));
                }
                None => return refused(error.to_string()),
            },
        };
        if self.is_revoked(&token)? {
            tracing::info!("rejected an access token: it is revoked");
            return refused("the access token is revoked".to_owned());
        }
        Ok(Ok(token))
    }

    /// Verifies the token of an internal caller. The outer error means that it cannot be verified.
    pub(super) async fn identify_internal(
        &self,
        token: &str,
        network: Option<ClientNetwork>,
    ) -> Result<Result<Arc<AccessToken>, pb::Unauthenticated>, Status> {
        match self.identify(&self.internal_tokens, token, &self.internal_audience, network).await? {
            Ok(token) => Ok(Ok(token)),
            Err(IdentifyError::Token(refused)) => Ok(Err(refused)),
            Err(IdentifyError::Unverified(_)) => {
                Err(Status::unavailable("the token cannot be verified now; retry"))
            }
        }
    }

    /// Whether a token is revoked. The error means that the revocation list cannot be read.
    pub(super) fn is_revoked(&self, token: &AccessToken) -> Result<bool, Status> {
        let revoked = self.revocations.contains(token);
        revoked.map_err(|error| Status::unavailable(format!("{error}; retry")))
    }
}

/// The network of a caller of auth itself.
pub(super) fn network_of<T>(request: &Request<T>) -> Option<ClientNetwork> {
    Peer::from_request(request).map(|peer| peer.address.ip().into())
}
