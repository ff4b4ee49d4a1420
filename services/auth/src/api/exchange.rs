//! Token exchange (RFC 8693): a transaction token for an internal caller's own token, or for a tool
//! service on behalf of its caller.

use std::{iter::successors, sync::Arc};

use drawbridge_audit::{Event, event as audit};
use drawbridge_proto::auth::v1::{
    self as pb, exchange_response::Outcome as Exchanged, operation::Kind,
};
use drawbridge_runtime::{JsonList, RequestId, log_pseudonym};
use drawbridge_transport::{LoggedCaller, log_call, transaction_token::Actor};
use tonic::Status;

use super::{Api, DecisionContext, allowed, missing_scopes, reason, with_scopes};
use crate::{
    authn::{AccessToken, Identity},
    metrics::TOKENS_REFUSED,
    policy::{DecisionOutcome, Policies},
    records::{DecisionEntry, who},
    transaction::{Delegation, MessageBinding, SubjectToken},
};

/// The maximum length of the actor chain between a subject and an RPC. A longer chain is a loop.
const ACTORS_MAX: usize = 4;
/// How many bytes of the name of an unknown RPC are recorded.
const RPC_BYTES_MAX: usize = 256;

/// The subject of an exchange, and the service that acts on its behalf.
struct ActingSubject {
    subject: Arc<AccessToken>,
    delegation: Option<Delegation>,
}

impl Api {
    pub(super) async fn decide_exchange(
        &self,
        request: pb::ExchangeRequest,
        context: &DecisionContext,
    ) -> Result<Exchanged, Status> {
        let pb::ExchangeRequest { subject_token, rpc, actor_token } = request;
        let policies = self.policies.load();
        let acting = if actor_token.is_empty() {
            let own = self.identify_internal(&subject_token, context.network).await?;
            own.map(|subject| ActingSubject { subject, delegation: None })
                .map_err(Exchanged::Unauthenticated)
        } else {
            self.delegate(&subject_token, &actor_token, &policies, context).await?
        };
        match acting {
            Ok(acting) => self.decide_call(&acting, &rpc, &policies, context).await,
            Err(outcome) => Ok(outcome),
        }
    }

    /// Decides whether a tool service may act on behalf of its caller.
    async fn delegate(
        &self,
        subject_token: &str,
        actor_token: &str,
        policies: &Policies,
        context: &DecisionContext,
    ) -> Result<Result<ActingSubject, Exchanged>, Status> {
        let unauthenticated = |description| {
            let unauthenticated = pb::Unauthenticated { description };
            Ok(Err(Exchanged::Unauthenticated(unauthenticated)))
        };
        let actor = match self.identify_internal(actor_token, context.network).await? {
            Ok(actor) => actor,
            Err(refused) => return unauthenticated(format!("the actor: {}", refused.description)),
        };
        let called = match self.minter.verify(subject_token) {
            Ok(called) => called,
            Err(error) => return unauthenticated(log_rejection(error.to_string())),
        };
        if self.is_revoked(&called.token)? {
            return unauthenticated(log_rejection(
                "the subject's access token is revoked".to_owned(),
            ));
        }
        let decision =
            policies.decide_operation(&actor.identity, "act", ("Service", &called.service));
        let (by, of) = (&actor.identity.principal, &called.token.identity.principal);
        log_call!(
            LoggedCaller::new(by, None),
            request_id = %context.ids.own,
            caller_request_id = context.ids.caller.as_ref().map(RequestId::as_str),
            service = called.service,
            for_principal = log_pseudonym(&of.issuer, &of.subject, &of.tenant).0,
            outcome = decision.outcome.as_str(),
            "policy_ids[]" = %JsonList(&decision.policy_ids),
            "delegation"
        );
        let delegation = audit::Delegation {
            request_id: context.ids.own.to_string(),
            who: who(&actor.identity, None),
            service: called.service.clone(),
            for_issuer: of.issuer.clone(),
            for_subject: of.subject.clone(),
            outcome: decision.outcome.as_str().to_owned(),
            policy_ids: decision.policy_ids.clone(),
        };
        self.commit(Event::Delegation(Box::new(delegation))).await?;
        if decision.outcome != DecisionOutcome::Allow {
            return Ok(Err(denied_to_caller(&actor.identity, decision.outcome)));
        }
        if chain_length(called.act.as_deref()) >= ACTORS_MAX {
            let reason = format!(
                "{ACTORS_MAX} services have already called one another on behalf of the subject"
            );
            let principal = Some(called.token.identity.principal);
            return Ok(Err(Exchanged::Denied(pb::Denied {
                reason,
                principal,
                decision: None,
                hidden: false,
            })));
        }
        let SubjectToken { token, txn, act, .. } = called;
        let actor = Actor { iss: by.issuer.clone(), sub: by.subject.clone(), act };
        Ok(Ok(ActingSubject { subject: token.into(), delegation: Some(Delegation { actor, txn }) }))
    }

    /// Decides on an RPC independently of its arguments.
    async fn decide_call(
        &self,
        acting: &ActingSubject,
        rpc: &str,
        policies: &Policies,
        context: &DecisionContext,
    ) -> Result<Exchanged, Status> {
        let ActingSubject { subject, delegation } = acting;
        let identity = &subject.identity;
        // An unknown RPC is decided and recorded like any other.
        let (kind, item) = policies.find_rpc(rpc).unwrap_or_else(|| {
            (
                Kind::Unspecified,
                pb::CatalogItem { rpc: truncate(rpc), ..pb::CatalogItem::default() },
            )
        });
        let decision = policies.decide(identity, kind, &item, None);
        let missing_scopes = missing_scopes(identity, &item, &[]);
        let recorded = self.record(&DecisionEntry {
            request_id: &context.ids.own,
            caller_request_id: context.ids.caller.as_ref(),
            identity,
            actor: delegation.as_ref().map(|delegation| &delegation.actor),
            kind,
            item: &item,
            arguments: None,
            redacted: false,
            decision: &decision,
            missing_scopes: missing_scopes.as_deref().unwrap_or_default(),
            revision: policies.revision(),
            epoch: context.epoch,
            took: context.started.elapsed(),
        });
        recorded.await?;
        if decision.outcome != DecisionOutcome::Allow {
            return Ok(denied_to_caller(identity, decision.outcome));
        }
        if let Some(scopes) = missing_scopes {
            let granted = policies.decide(&with_scopes(identity, &scopes), kind, &item, None);
            if granted.outcome != DecisionOutcome::Allow {
                return Ok(denied_to_caller(identity, granted.outcome));
            }
            let principal = Some(identity.principal.clone());
            return Ok(Exchanged::InsufficientScope(pb::InsufficientScope { scopes, principal }));
        }
        let binding = MessageBinding::AnyMessage;
        let token = self.mint(subject, &item, binding, &context.ids.own, delegation.as_ref())?;
        Ok(Exchanged::Allowed(allowed(subject, Some(token), Some(decision), policies, context)))
    }
}

/// The denial that the caller sees. It does not distinguish hidden from missing items and does not
/// name policies: only the decision record does.
fn denied_to_caller(identity: &Identity, outcome: DecisionOutcome) -> Exchanged {
    let outcome = match outcome {
        DecisionOutcome::Forbidden | DecisionOutcome::NotInCatalog | DecisionOutcome::Error => {
            DecisionOutcome::NotPermitted
        }
        outcome => outcome,
    };
    let (reason, principal) = (reason(outcome).to_owned(), Some(identity.principal.clone()));
    Exchanged::Denied(pb::Denied { reason, principal, decision: None, hidden: false })
}

/// The part of a caller-chosen name that is recorded.
fn truncate(name: &str) -> String {
    name[..name.floor_char_boundary(RPC_BYTES_MAX)].to_owned()
}

/// The length of the actor chain between a subject and the call.
fn chain_length(act: Option<&Actor>) -> usize {
    successors(act, |actor| actor.act.as_deref()).count()
}

/// Logs and counts a rejected subject token.
fn log_rejection(description: String) -> String {
    tracing::info!(reason = description, "rejected a subject token");
    TOKENS_REFUSED.get().increment(1);
    description
}
