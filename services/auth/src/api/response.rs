//! Responses to authorization requests.

use std::time::{Duration, SystemTime};

use drawbridge_proto::auth::v1 as pb;

use super::DecisionContext;
use crate::{
    authn::{AccessToken, Identity},
    policy::{DecisionOutcome, Policies, PolicyDecision},
};

/// How long a decision that does not depend on the arguments may be cached.
const REUSABLE_FOR: Duration = Duration::from_secs(5);

/// How long a decision may be cached for this token.
pub(super) fn reusable_for(token: &AccessToken) -> prost_types::Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(token.expires_at).saturating_sub(now);
    // INVARIANT: at most REUSABLE_FOR, which fits a protobuf duration.
    left.min(REUSABLE_FOR).try_into().unwrap_or_default()
}

pub(super) fn allowed(
    token: &AccessToken,
    transaction_token: Option<pb::TransactionToken>,
    policy_decision: Option<PolicyDecision>,
    policies: &Policies,
    context: &DecisionContext,
) -> pb::Allowed {
    let identity = &token.identity;
    let (groups, roles) = (identity.groups.clone(), identity.roles.clone());
    pb::Allowed {
        principal: Some(pb::Principal { groups, roles, ..principal(identity) }),
        transaction_token,
        decision: policy_decision.map(|made| decision(made, policies)),
        epoch: context.epoch,
        reusable_for: None,
        expires_at: expiry(token),
    }
}

/// The caller as the edge sees it, with its kind.
pub(super) fn principal(identity: &Identity) -> pb::Principal {
    pb::Principal { workload: identity.workload, ..identity.principal.clone() }
}

/// When the access token expires. `None`: beyond the range of a timestamp.
fn expiry(token: &AccessToken) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: token.expires_at.try_into().ok()?, nanos: 0 })
}

pub(super) fn denied(
    identity: &Identity,
    policy_decision: PolicyDecision,
    policies: &Policies,
) -> pb::Denied {
    pb::Denied {
        reason: reason(policy_decision.outcome).to_owned(),
        principal: Some(principal(identity)),
        decision: Some(decision(policy_decision, policies)),
        hidden: false,
    }
}

fn decision(made: PolicyDecision, policies: &Policies) -> pb::Decision {
    pb::Decision { policy_ids: made.policy_ids, policy_revision: policies.revision().to_owned() }
}

/// The reason that a denied caller sees.
pub(super) fn reason(outcome: DecisionOutcome) -> &'static str {
    match outcome {
        DecisionOutcome::NotPermitted | DecisionOutcome::Allow => "no policy permits it",
        DecisionOutcome::Forbidden => "a policy forbids it",
        DecisionOutcome::NotInCatalog => "it is not in the policy catalog",
        DecisionOutcome::Conditional => "the decision depends on arguments that are unknown here",
        DecisionOutcome::Arguments => "its arguments do not match the policy schema",
        DecisionOutcome::Error => "a policy could not be evaluated",
    }
}
