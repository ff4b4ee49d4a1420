//! Token exchange (RFC 8693): a transaction token for an internal caller's own token, or for a tool service in the
//! name of whoever has called it.

use std::{iter::successors, sync::Arc};

use drawbridge_proto::auth::v1::{self as pb, exchange_response::Outcome as Exchanged};
use drawbridge_sdk::identity::Actor;
use tonic::Status;

use super::{Api, Deciding, allowed, denied, missing_scopes};
use crate::{
    authn::Token,
    decision_log::Decided,
    policy::{Answer, Outcome, Policies},
    transaction::{Called, Delegation},
};

/// How many may stand between a subject and an RPC. Whoever needs more has made a loop.
const ACTORS_MAX: usize = 4;

/// Who calls, and in whose name.
struct Calling {
    subject: Arc<Token>,
    delegation: Option<Delegation>,
}

impl Api {
    pub(super) async fn decide_exchange(
        &self,
        request: pb::ExchangeRequest,
        deciding: &Deciding<'_>,
    ) -> Result<Exchanged, Status> {
        let pb::ExchangeRequest { subject_token, rpc, actor_token } = request;
        let policies = self.policies.load();
        let calling = if actor_token.is_empty() {
            let own = self.identify(&self.inside, &subject_token, &self.internal_audience).await?;
            own.map(|subject| Calling { subject, delegation: None }).map_err(Exchanged::Unauthenticated)
        } else {
            self.delegate(&subject_token, &actor_token, &policies, deciding).await?
        };
        match calling {
            Ok(calling) => self.decide_call(&calling, &rpc, &policies, deciding),
            Err(refused) => Ok(refused),
        }
    }

    /// Decides whether a tool service may act for whoever has called it.
    async fn delegate(
        &self,
        subject_token: &str,
        actor_token: &str,
        policies: &Policies,
        deciding: &Deciding<'_>,
    ) -> Result<Result<Calling, Exchanged>, Status> {
        let unauthenticated = |description| {
            let unauthenticated = pb::Unauthenticated { description };
            Ok(Err(Exchanged::Unauthenticated(unauthenticated)))
        };
        let actor = match self.identify(&self.inside, actor_token, &self.internal_audience).await? {
            Ok(actor) => actor,
            Err(refused) => return unauthenticated(format!("the actor: {}", refused.description)),
        };
        let called = match self.minter.read(subject_token) {
            Ok(called) => called,
            Err(error) => return unauthenticated(refuse(error.to_string())),
        };
        if self.is_revoked(&called.token)? {
            return unauthenticated(refuse("the subject's access token is revoked".to_owned()));
        }
        let outcome = policies.decide_operation(&actor.identity, "act", ("Service", &called.service));
        let (by, of) = (&actor.identity.principal, &called.token.identity.principal);
        tracing::info!(
            request_id = %deciding.request_id, issuer = by.issuer, subject = by.subject, service = called.service,
            for_issuer = of.issuer, for_subject = of.subject,
            outcome = outcome.answer.as_str(), policy_ids = ?outcome.policy_ids,
            "delegation"
        );
        if outcome.answer != Answer::Allow {
            return Ok(Err(Exchanged::Denied(denied(&actor.identity, outcome, policies))));
        }
        if actors(called.act.as_deref()) >= ACTORS_MAX {
            let reason =
                format!("{ACTORS_MAX} services have called one another in the subject's name already");
            let principal = Some(called.token.identity.principal);
            return Ok(Err(Exchanged::Denied(pb::Denied {
                reason,
                principal,
                decision: None,
                hidden: false,
            })));
        }
        let Called { token, txn, act, .. } = called;
        let actor = Actor { iss: by.issuer.clone(), sub: by.subject.clone(), act };
        Ok(Ok(Calling { subject: token.into(), delegation: Some(Delegation { actor, txn }) }))
    }

    /// Decides on an RPC whatever its arguments are.
    fn decide_call(
        &self,
        calling: &Calling,
        rpc: &str,
        policies: &Policies,
        deciding: &Deciding<'_>,
    ) -> Result<Exchanged, Status> {
        let Calling { subject, delegation } = calling;
        let identity = &subject.identity;
        let Some((kind, item)) = policies.item_of_rpc(rpc) else {
            let outcome = Outcome::from(Answer::NotInCatalog);
            return Ok(Exchanged::Denied(denied(identity, outcome, policies)));
        };
        let outcome = policies.decide(identity, kind, &item, None);
        let missing_scopes = missing_scopes(identity, &item, &[]);
        self.log.write(&Decided {
            request_id: deciding.request_id,
            identity,
            actor: delegation.as_ref().map(|delegation| &delegation.actor),
            kind,
            item: &item,
            arguments: None,
            redacted: false,
            outcome: &outcome,
            missing_scopes: missing_scopes.as_deref().unwrap_or_default(),
            revision: policies.revision(),
            took: deciding.started.elapsed(),
        });
        if outcome.answer != Answer::Allow {
            return Ok(Exchanged::Denied(denied(identity, outcome, policies)));
        }
        if let Some(scopes) = missing_scopes {
            let principal = Some(identity.principal.clone());
            return Ok(Exchanged::InsufficientScope(pb::InsufficientScope { scopes, principal }));
        }
        let token = self.mint(subject, &item, deciding.request_id, delegation.as_ref())?;
        Ok(Exchanged::Allowed(allowed(subject, Some(token), Some(outcome), policies, deciding)))
    }
}

/// How many stand between a subject and the call.
fn actors(act: Option<&Actor>) -> usize {
    successors(act, |actor| actor.act.as_deref()).count()
}

/// Notes that a subject token is not accepted.
fn refuse(description: String) -> String {
    tracing::info!(reason = description, "a subject token is not accepted");
    metrics::counter!("auth_tokens_refused_total").increment(1);
    description
}
