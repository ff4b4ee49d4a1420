//! Token exchange (RFC 8693): a transaction token for an internal caller's own token, or for a tool service in the
//! name of whoever has called it.

use std::{iter::successors, sync::Arc};

use drawbridge_proto::auth::v1::{
    self as pb, exchange_response::Outcome as Exchanged, operation::Kind,
};
use drawbridge_sdk::{RequestId, identity::Actor};
use tonic::Status;

use super::{Api, Deciding, allowed, missing_scopes, reason, with_scopes};
use crate::{
    authn::{Identity, Token},
    decision_log::Decided,
    policy::{Answer, Policies},
    transaction::{Called, Delegation, Opens},
};

/// How many may stand between a subject and an RPC. Whoever needs more has made a loop.
const ACTORS_MAX: usize = 4;
/// How much of the name of an unknown RPC is recorded, in bytes.
const RPC_BYTES_MAX: usize = 256;

/// Who calls, and in whose name.
struct Calling {
    subject: Arc<Token>,
    delegation: Option<Delegation>,
}

impl Api {
    pub(super) async fn decide_exchange(
        &self,
        request: pb::ExchangeRequest,
        deciding: &Deciding,
    ) -> Result<Exchanged, Status> {
        let pb::ExchangeRequest { subject_token, rpc, actor_token } = request;
        let policies = self.policies.load();
        let calling = if actor_token.is_empty() {
            let own = self.identify_inside(&subject_token, deciding.network).await?;
            own.map(|subject| Calling { subject, delegation: None })
                .map_err(Exchanged::Unauthenticated)
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
        deciding: &Deciding,
    ) -> Result<Result<Calling, Exchanged>, Status> {
        let unauthenticated = |description| {
            let unauthenticated = pb::Unauthenticated { description };
            Ok(Err(Exchanged::Unauthenticated(unauthenticated)))
        };
        let actor = match self.identify_inside(actor_token, deciding.network).await? {
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
        let outcome =
            policies.decide_operation(&actor.identity, "act", ("Service", &called.service));
        let (by, of) = (&actor.identity.principal, &called.token.identity.principal);
        tracing::info!(
            request_id = %deciding.ids.own, caller_request_id = deciding.ids.caller.as_ref().map(RequestId::as_str),
            issuer = by.issuer, subject = by.subject, service = called.service,
            for_issuer = of.issuer, for_subject = of.subject,
            outcome = outcome.answer.as_str(), policy_ids = ?outcome.policy_ids,
            "delegation"
        );
        if outcome.answer != Answer::Allow {
            return Ok(Err(refused(&actor.identity, outcome.answer)));
        }
        if actors(called.act.as_deref()) >= ACTORS_MAX {
            let reason = format!(
                "{ACTORS_MAX} services have called one another in the subject's name already"
            );
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
        deciding: &Deciding,
    ) -> Result<Exchanged, Status> {
        let Calling { subject, delegation } = calling;
        let identity = &subject.identity;
        // What nobody has heard of is decided and recorded like anything else.
        let (kind, item) = policies.item_of_rpc(rpc).unwrap_or_else(|| {
            (Kind::Unspecified, pb::CatalogItem { rpc: cut(rpc), ..pb::CatalogItem::default() })
        });
        let outcome = policies.decide(identity, kind, &item, None);
        let missing_scopes = missing_scopes(identity, &item, &[]);
        self.log.write(&Decided {
            request_id: &deciding.ids.own,
            caller_request_id: deciding.ids.caller.as_ref(),
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
            return Ok(refused(identity, outcome.answer));
        }
        if let Some(scopes) = missing_scopes {
            let granted = policies.decide(&with_scopes(identity, &scopes), kind, &item, None);
            if granted.answer != Answer::Allow {
                return Ok(refused(identity, granted.answer));
            }
            let principal = Some(identity.principal.clone());
            return Ok(Exchanged::InsufficientScope(pb::InsufficientScope { scopes, principal }));
        }
        let opens = Opens::AnyMessage;
        let token = self.mint(subject, &item, opens, &deciding.ids.own, delegation.as_ref())?;
        Ok(Exchanged::Allowed(allowed(subject, Some(token), Some(outcome), policies, deciding)))
    }
}

/// The refusal that the caller itself gets. It does not tell what is hidden from what is not there, nor by which policy:
/// the record has that.
fn refused(identity: &Identity, answer: Answer) -> Exchanged {
    let answer = match answer {
        Answer::Forbidden | Answer::NotInCatalog | Answer::Error => Answer::NotPermitted,
        answer => answer,
    };
    let (reason, principal) = (reason(answer).to_owned(), Some(identity.principal.clone()));
    Exchanged::Denied(pb::Denied { reason, principal, decision: None, hidden: false })
}

/// As much of a name that a caller made up as is written down.
fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(RPC_BYTES_MAX)].to_owned()
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
