//! Who shows a token.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as pb, unverified::Reason};
use drawbridge_sdk::Peer;
use metrics::counter;
use tonic::{Request, Status};

use super::Api;
use crate::authn::{ClientNetwork, Token, TokenVerifier};

/// Why whoever shows a token is not known.
pub(super) enum Refused {
    /// It is not good.
    Token(pb::Unauthenticated),
    /// Nobody can say whether it is good.
    Unverified(Reason),
}

impl Api {
    /// What clients show to an edge is nobody else's business.
    pub(super) fn must_be_edge<T>(&self, request: &Request<T>) -> Result<(), Status> {
        // In plaintext nobody is known.
        let known = Peer::of(request).and_then(|peer| peer.id.as_ref());
        match known {
            Some(id) if !self.edges.contains(id) => {
                Err(Status::permission_denied("only an edge may ask this"))
            }
            _ => Ok(()),
        }
    }

    /// Verifies a token that is shown from `network`. The outer error means that nobody can say whether it is revoked.
    pub(super) async fn identify(
        &self,
        verifier: &TokenVerifier,
        token: &str,
        resource: &str,
        network: Option<ClientNetwork>,
    ) -> Result<Result<Arc<Token>, Refused>, Status> {
        let refused = |description: String| {
            counter!("auth_tokens_refused_total").increment(1);
            Ok(Err(Refused::Token(pb::Unauthenticated { description })))
        };
        let token = match verifier.verify(token, resource, network).await {
            Ok(token) => token,
            Err(error) => match error.unverified() {
                Some(reason) => {
                    counter!("auth_tokens_unverified_total", "reason" => reason.as_str_name())
                        .increment(1);
                    return Ok(Err(Refused::Unverified(reason)));
                }
                None => return refused(error.to_string()),
            },
        };
        if self.is_revoked(&token)? {
            tracing::info!("an access token is not accepted: it is revoked");
            return refused("the access token is revoked".to_owned());
        }
        Ok(Ok(token))
    }

    /// Verifies the token of an internal caller. The outer error means that nobody can say.
    pub(super) async fn identify_inside(
        &self,
        token: &str,
        network: Option<ClientNetwork>,
    ) -> Result<Result<Arc<Token>, pb::Unauthenticated>, Status> {
        match self.identify(&self.inside, token, &self.internal_audience, network).await? {
            Ok(token) => Ok(Ok(token)),
            Err(Refused::Token(refused)) => Ok(Err(refused)),
            Err(Refused::Unverified(_)) => {
                Err(Status::unavailable("the token cannot be verified; try again"))
            }
        }
    }

    /// Whether a token is revoked. The error means that nobody can say.
    pub(super) fn is_revoked(&self, token: &Token) -> Result<bool, Status> {
        let revoked = self.revocations.has(token);
        revoked.map_err(|error| Status::unavailable(format!("{error}; try again")))
    }
}

/// Where a request to auth itself comes from.
pub(super) fn network_of<T>(request: &Request<T>) -> Option<ClientNetwork> {
    Peer::of(request).map(|peer| peer.address.ip().into())
}
