//! Revocation of tokens, and introspection of transaction tokens.

use std::time::{Duration, SystemTime};

use drawbridge_audit::{Event, event::Revocation};
use drawbridge_proto::auth::v1::{
    self as pb, introspect_response::Status as IntrospectionStatus, revoke_response,
    token_set::Which,
};
use drawbridge_runtime::{JsonList, RequestId, error_chain};
use drawbridge_transport::{LoggedCaller, log_call};
use tonic::Status;

use super::{Api, Ids, denied};
use crate::{
    authn::Identity,
    policy::DecisionOutcome,
    policy::PolicyDecision,
    records::{unrecorded, who},
    revocation::{REMEMBERED_FOR, RevokeError},
};

/// The maximum number of transaction tokens in one request.
const TOKENS_MAX: usize = 256;
/// How many known issuers the error for an unknown issuer lists.
const ISSUERS_LISTED_MAX: usize = 20;

impl Api {
    pub(super) async fn decide_revocation(
        &self,
        identity: &Identity,
        tokens: pb::TokenSet,
        ids: &Ids,
    ) -> Result<revoke_response::Outcome, Status> {
        let policies = self.policies.load();
        let decision = policies.decide_operation(identity, "revoke", ("Issuer", &tokens.issuer));
        log_call!(
            LoggedCaller::new(&identity.principal, None),
            request_id = %ids.own,
            caller_request_id = ids.caller.as_ref().map(RequestId::as_str),
            outcome = decision.outcome.as_str(),
            "policy_ids[]" = %JsonList(&decision.policy_ids),
            "revocation"
        );
        let mut record = revocation_record(identity, &tokens, ids, &decision);
        if decision.outcome != DecisionOutcome::Allow {
            self.commit(Event::Revocation(Box::new(record))).await?;
            // The record names the policies; the response does not.
            let denied = pb::Denied { decision: None, ..denied(identity, decision, &policies) };
            return Ok(revoke_response::Outcome::Denied(denied));
        }
        self.require_known_issuer(&tokens.issuer)?;
        let unseen_since = self.issuers.seen().unseen_since(&tokens);
        self.audit.check().map_err(|error| unrecorded(&error))?;
        let revoked = self.revocations.revoke(tokens).await;
        if revoked.is_err() {
            "failed".clone_into(&mut record.outcome);
        }
        self.commit(Event::Revocation(Box::new(record))).await?;
        let revoked_at = revoked.map_err(|error| match error {
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
            not_seen_since: unseen_since.map(Into::into),
        }))
    }

    /// Rejects an unknown issuer. Its tokens are not accepted, so a revocation would have no
    /// effect.
    fn require_known_issuer(&self, issuer: &str) -> Result<(), Status> {
        let mut known = self.issuers.names();
        if issuer.is_empty() || known.iter().any(|name| name == issuer) {
            return Ok(());
        }
        if known.len() > ISSUERS_LISTED_MAX {
            known.truncate(ISSUERS_LISTED_MAX);
            known.push("…".to_owned());
        }
        let known = known.join(", ");
        Err(Status::invalid_argument(format!("unknown issuer {issuer:?}; known issuers: {known}")))
    }

    /// The status of each of these transaction tokens.
    ///
    /// A token whose key is not known is revoked if what it names is: the tool service has verified
    /// it, and nothing else says whose session to end.
    pub(super) fn introspect_tokens(
        &self,
        tokens: &[String],
    ) -> Result<Vec<IntrospectionStatus>, Status> {
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            return Err(Status::invalid_argument(format!(
                "expected 1 to {TOKENS_MAX} transaction tokens"
            )));
        }
        let status = |token: &String| {
            let Some(named) = self.minter.named_caller(token) else {
                return Ok(IntrospectionStatus::Unknown);
            };
            Ok(match (self.is_revoked(&named.token)?, named.is_verified) {
                (true, _) => IntrospectionStatus::Revoked,
                (false, true) => IntrospectionStatus::Active,
                (false, false) => IntrospectionStatus::Unknown,
            })
        };
        tokens.iter().map(status).collect()
    }
}

fn revocation_record(
    identity: &Identity,
    tokens: &pb::TokenSet,
    ids: &Ids,
    decision: &PolicyDecision,
) -> Revocation {
    let (what, value) = match &tokens.which {
        Some(Which::Subject(subject)) => ("subject", subject.as_str()),
        Some(Which::ClientId(client)) => ("client", client.as_str()),
        Some(Which::TokenId(id)) => ("token", id.as_str()),
        None => ("", ""),
    };
    Revocation {
        request_id: ids.own.to_string(),
        who: who(identity, None),
        of_issuer: tokens.issuer.clone(),
        what: what.to_owned(),
        value: value.to_owned(),
        outcome: decision.outcome.as_str().to_owned(),
        policy_ids: decision.policy_ids.clone(),
    }
}
