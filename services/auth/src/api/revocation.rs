//! Who revokes, and for whom it is over.

use std::time::{Duration, SystemTime};

use drawbridge_proto::auth::v1::{self as pb, revoke_response};
use drawbridge_sdk::{RequestId, error_chain};
use tonic::Status;

use super::{Api, Ids, denied};
use crate::{
    authn::Identity,
    policy::Answer,
    revocation::{REMEMBERED_FOR, RevokeError},
};

/// The most transaction tokens that are looked at in one request.
const TOKENS_MAX: usize = 256;
/// So many known issuers are named to whoever names another.
const ISSUERS_NAMED_MAX: usize = 20;

impl Api {
    pub(super) async fn decide_revocation(
        &self,
        identity: &Identity,
        tokens: pb::TokenSet,
        ids: &Ids,
    ) -> Result<revoke_response::Outcome, Status> {
        let policies = self.policies.load();
        let outcome = policies.decide_operation(identity, "revoke", ("Issuer", &tokens.issuer));
        let pb::Principal { issuer, subject, .. } = &identity.principal;
        tracing::info!(
            request_id = %ids.own, caller_request_id = ids.caller.as_ref().map(RequestId::as_str), issuer, subject, ?tokens, outcome = ?outcome.answer, policy_ids = ?outcome.policy_ids,
            "revocation"
        );
        if outcome.answer != Answer::Allow {
            // The record has the policies; the caller does not.
            let denied = pb::Denied { decision: None, ..denied(identity, outcome, &policies) };
            return Ok(revoke_response::Outcome::Denied(denied));
        }
        self.must_know(&tokens.issuer)?;
        let none_since = self.issuers.seen().none_since(&tokens);
        let revoked_at = self.revocations.revoke(tokens).await.map_err(|error| match error {
            RevokeError::Incomplete => Status::invalid_argument(error.to_string()),
            RevokeError::TooMany => Status::resource_exhausted(error.to_string()),
            RevokeError::Unwritable(_) | RevokeError::Unsaved(_) => {
                tracing::error!(error = error_chain(&error), "cannot revoke");
                Status::unavailable(error.to_string())
            }
        })?;
        let revoked_at = SystemTime::UNIX_EPOCH + Duration::from_secs(revoked_at);
        Ok(revoke_response::Outcome::Revoked(pb::Revoked {
            revoked_at: Some(revoked_at.into()),
            forgotten_at: Some((revoked_at + REMEMBERED_FOR).into()),
            not_seen_since: none_since.map(Into::into),
        }))
    }

    /// Refuses an issuer whose tokens are not accepted anyway: to revoke them would change nothing.
    fn must_know(&self, issuer: &str) -> Result<(), Status> {
        if issuer.is_empty() || self.issuers.names().any(|name| name == issuer) {
            return Ok(());
        }
        let mut known: Vec<_> = self.issuers.names().take(ISSUERS_NAMED_MAX).collect();
        if self.issuers.names().count() > known.len() {
            known.push("…");
        }
        let known = known.join(", ");
        Err(Status::invalid_argument(format!(
            "unknown issuer {issuer:?}; the issuers known here: {known}"
        )))
    }

    /// Which of these transaction tokens stand for somebody who is still let in.
    pub(super) fn introspect_tokens(&self, tokens: &[String]) -> Result<Vec<bool>, Status> {
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            return Err(Status::invalid_argument(format!(
                "one token or more, and at most {TOKENS_MAX}"
            )));
        }
        let is_active = |token: &String| match self.minter.recall(token) {
            Ok(called) => self.is_revoked(&called.token).map(|revoked| !revoked),
            Err(_) => Ok(false),
        };
        tokens.iter().map(is_active).collect()
    }
}
