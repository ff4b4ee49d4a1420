//! Verdicts of single policies, and their combination into a decision.

use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, Effect, Entities, PartialEntities, PartialRequest, Policy,
    PolicyId, PolicySet, Request, Schema,
};

use super::{DecisionOutcome, PolicyDecision, Shadow, source::PolicyMeta};

/// The result of evaluating one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Satisfied,
    /// It depends on the arguments, which are unknown.
    Unknown,
    /// It could not be evaluated.
    Error(String),
}

/// The verdict of a policy that is not false.
#[derive(Clone, Debug)]
pub(super) struct PolicyVerdict {
    pub(super) policy: PolicyId,
    pub(super) verdict: Verdict,
}

/// Policies by effect. Cedar reports satisfied permits only if no forbid is satisfied; separate
/// sets report all.
#[derive(Debug, Default)]
pub(super) struct PolicySets {
    permits: PolicySet,
    forbids: PolicySet,
}

impl PolicySets {
    /// Adds a policy. The caller has checked that its id is unique.
    pub(super) fn add(&mut self, policy: &Policy) {
        let set = match policy.effect() {
            Effect::Permit => &mut self.permits,
            Effect::Forbid => &mut self.forbids,
        };
        // INVARIANT: every policy is static and every `@id` is unique; adding one again has no
        // effect.
        let _ = set.add(policy.clone());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.permits.is_empty() && self.forbids.is_empty()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.permits.policies().chain(self.forbids.policies()).map(|policy| policy.id().as_ref())
    }

    fn each(&self) -> impl Iterator<Item = &PolicySet> {
        [&self.permits, &self.forbids].into_iter().filter(|set| !set.is_empty())
    }

    /// Evaluates the policies on a complete request.
    pub(super) fn evaluate(
        &self,
        request: &Request,
        entities: &Entities,
        verdicts: &mut Vec<PolicyVerdict>,
    ) {
        for set in self.each() {
            let response = Authorizer::new().is_authorized(request, set, entities);
            let diagnostics = response.diagnostics();
            verdicts.extend(diagnostics.reason().map(|policy| PolicyVerdict {
                policy: policy.clone(),
                verdict: Verdict::Satisfied,
            }));
            verdicts.extend(diagnostics.errors().map(
                |AuthorizationError::PolicyEvaluationError(error)| PolicyVerdict {
                    policy: error.policy_id().clone(),
                    verdict: Verdict::Error(error.inner().to_string()),
                },
            ));
        }
    }

    /// Evaluates the policies with unknown arguments, by typed partial evaluation.
    pub(super) fn evaluate_partially(
        &self,
        request: &PartialRequest,
        entities: &PartialEntities,
        schema: &Schema,
        verdicts: &mut Vec<PolicyVerdict>,
    ) {
        for set in self.each() {
            let response = match set.tpe(request, entities, schema) {
                Ok(response) => response,
                Err(error) => {
                    verdicts.extend(set.policies().map(|policy| PolicyVerdict {
                        policy: policy.id().clone(),
                        verdict: Verdict::Error(error.to_string()),
                    }));
                    continue;
                }
            };
            let mut push = |policy: &PolicyId, verdict| {
                verdicts.push(PolicyVerdict { policy: policy.clone(), verdict });
            };
            for policy in response.true_permits().chain(response.true_forbids()) {
                push(policy, Verdict::Satisfied);
            }
            for policy in response.residual_permits().chain(response.residual_forbids()) {
                push(policy, Verdict::Unknown);
            }
            for policy in response.error_permits().chain(response.error_forbids()) {
                push(policy, Verdict::Error("evaluation fails for all arguments".to_owned()));
            }
        }
    }
}

/// Combines verdicts: an error denies, then a forbid wins, then a permit allows.
pub(super) fn combine<'a>(
    verdicts: &[PolicyVerdict],
    meta: impl Fn(&PolicyId) -> &'a Arc<PolicyMeta>,
) -> PolicyDecision {
    let with_meta = || verdicts.iter().map(|made| (meta(&made.policy), &made.verdict));
    let (outcome, policy_ids) = determine(with_meta().filter(|(meta, _)| !meta.shadow));
    let shadow = with_meta().any(|(meta, _)| meta.shadow).then(|| determine(with_meta()));
    let shadow = shadow
        .filter(|(with_shadow, _)| *with_shadow != outcome)
        .map(|(outcome, policy_ids)| Shadow { outcome, policy_ids });
    PolicyDecision { outcome, policy_ids, shadow, reads_arguments: false }
}

fn determine<'a>(
    verdicts: impl Iterator<Item = (&'a Arc<PolicyMeta>, &'a Verdict)> + Clone,
) -> (DecisionOutcome, Vec<String>) {
    let ids = |wanted: fn(Effect, &Verdict) -> bool| {
        let found = verdicts.clone().filter(|(meta, verdict)| wanted(meta.effect, verdict));
        let mut ids: Vec<_> = found.map(|(meta, _)| meta.id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let errors = ids(|_, verdict| matches!(verdict, Verdict::Error(_)));
    if !errors.is_empty() {
        return (DecisionOutcome::Error, errors);
    }
    let forbids = ids(|effect, verdict| effect == Effect::Forbid && *verdict == Verdict::Satisfied);
    if !forbids.is_empty() {
        return (DecisionOutcome::Forbidden, forbids);
    }
    let permits = ids(|effect, verdict| effect == Effect::Permit && *verdict == Verdict::Satisfied);
    let unknown = |wanted| {
        verdicts
            .clone()
            .any(|(meta, verdict)| meta.effect == wanted && *verdict == Verdict::Unknown)
    };
    match (permits.is_empty(), unknown(Effect::Permit), unknown(Effect::Forbid)) {
        (true, false, _) => (DecisionOutcome::NotPermitted, Vec::new()),
        (false, _, false) => (DecisionOutcome::Allow, permits),
        _ => (DecisionOutcome::Conditional, Vec::new()),
    }
}
