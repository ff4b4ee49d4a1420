//! What single policies say of a request, and what that makes together.

use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, Effect, Entities, PartialEntities, PartialRequest, Policy,
    PolicyId, PolicySet, Request, Schema,
};

use super::{Answer, Outcome, Shadow, source::Meta};

/// What one policy says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Satisfied,
    /// It depends on the arguments.
    Unknown,
    /// It could not be evaluated.
    Error(String),
}

/// What a policy says, when it is not simply false.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) policy: PolicyId,
    pub(super) verdict: Verdict,
}

/// Some policies, apart by effect: Cedar names satisfied permits only where no forbid is satisfied, and here it
/// shall name all.
#[derive(Debug, Default)]
pub(super) struct Sets {
    permits: PolicySet,
    forbids: PolicySet,
}

impl Sets {
    /// Adds a policy, whose id the caller has seen to be its own.
    pub(super) fn add(&mut self, policy: &Policy) {
        let set = match policy.effect() {
            Effect::Permit => &mut self.permits,
            Effect::Forbid => &mut self.forbids,
        };
        // INVARIANT: every policy is static and every `@id` occurs once; a policy that a bucket already holds stays.
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

    /// Evaluates them on a whole request.
    pub(super) fn evaluate(&self, request: &Request, entities: &Entities, said: &mut Vec<Said>) {
        for set in self.each() {
            let response = Authorizer::new().is_authorized(request, set, entities);
            let diagnostics = response.diagnostics();
            said.extend(
                diagnostics
                    .reason()
                    .map(|policy| Said { policy: policy.clone(), verdict: Verdict::Satisfied }),
            );
            said.extend(diagnostics.errors().map(
                |AuthorizationError::PolicyEvaluationError(error)| Said {
                    policy: error.policy_id().clone(),
                    verdict: Verdict::Error(error.inner().to_string()),
                },
            ));
        }
    }

    /// Evaluates them with the arguments unknown, by typed partial evaluation.
    pub(super) fn evaluate_partially(
        &self,
        request: &PartialRequest,
        entities: &PartialEntities,
        schema: &Schema,
        said: &mut Vec<Said>,
    ) {
        for set in self.each() {
            let response = match set.tpe(request, entities, schema) {
                Ok(response) => response,
                Err(error) => {
                    said.extend(set.policies().map(|policy| Said {
                        policy: policy.id().clone(),
                        verdict: Verdict::Error(error.to_string()),
                    }));
                    continue;
                }
            };
            let mut say =
                |policy: &PolicyId, verdict| said.push(Said { policy: policy.clone(), verdict });
            for policy in response.true_permits().chain(response.true_forbids()) {
                say(policy, Verdict::Satisfied);
            }
            for policy in response.residual_permits().chain(response.residual_forbids()) {
                say(policy, Verdict::Unknown);
            }
            for policy in response.error_permits().chain(response.error_forbids()) {
                say(policy, Verdict::Error("it errs whatever the arguments are".to_owned()));
            }
        }
    }
}

/// Puts together what was said: errors deny, then a forbid wins, then a permit allows.
pub(super) fn outcome<'a>(said: &[Said], meta: impl Fn(&PolicyId) -> &'a Arc<Meta>) -> Outcome {
    let with_meta = || said.iter().map(|said| (meta(&said.policy), &said.verdict));
    let (answer, policy_ids) = answer(with_meta().filter(|(meta, _)| !meta.shadow));
    let shadow = with_meta().any(|(meta, _)| meta.shadow).then(|| self::answer(with_meta()));
    let shadow = shadow
        .filter(|(would_be, _)| *would_be != answer)
        .map(|(answer, policy_ids)| Shadow { answer, policy_ids });
    Outcome { answer, policy_ids, shadow, reads_arguments: false }
}

fn answer<'a>(
    said: impl Iterator<Item = (&'a Arc<Meta>, &'a Verdict)> + Clone,
) -> (Answer, Vec<String>) {
    let ids = |wanted: fn(Effect, &Verdict) -> bool| {
        let found = said.clone().filter(|(meta, verdict)| wanted(meta.effect, verdict));
        let mut ids: Vec<_> = found.map(|(meta, _)| meta.id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let errors = ids(|_, verdict| matches!(verdict, Verdict::Error(_)));
    if !errors.is_empty() {
        return (Answer::Error, errors);
    }
    let forbids = ids(|effect, verdict| effect == Effect::Forbid && *verdict == Verdict::Satisfied);
    if !forbids.is_empty() {
        return (Answer::Forbidden, forbids);
    }
    let permits = ids(|effect, verdict| effect == Effect::Permit && *verdict == Verdict::Satisfied);
    let unknown = |wanted| {
        said.clone().any(|(meta, verdict)| meta.effect == wanted && *verdict == Verdict::Unknown)
    };
    match (permits.is_empty(), unknown(Effect::Permit), unknown(Effect::Forbid)) {
        (true, false, _) => (Answer::NotPermitted, Vec::new()),
        (false, _, false) => (Answer::Allow, permits),
        _ => (Answer::Perhaps, Vec::new()),
    }
}
