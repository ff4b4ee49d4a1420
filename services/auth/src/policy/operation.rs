//! Decisions on resources outside the catalog.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Context, Entities, Entity, Request, RestrictedExpression};

use super::{DecisionOutcome, Policies, PolicyDecision, failed, index::ScopeKey, log_errors, uid};
use crate::{Identity, metrics::POLICY_ERRORS};

impl Policies {
    /// Decides an operation on a resource outside the catalog, such as `Action::"revoke"` on an
    /// `Issuer`. It has no arguments; the resource's id is also its attribute `name`.
    pub fn decide_operation(
        &self,
        identity: &Identity,
        action: &'static str,
        resource: (&'static str, &str),
    ) -> PolicyDecision {
        let decision =
            self.try_decide_operation(identity, action, resource).unwrap_or_else(|denied| denied);
        if decision.outcome == DecisionOutcome::Error {
            POLICY_ERRORS.get().increment(1);
        }
        decision
    }

    fn try_decide_operation(
        &self,
        identity: &Identity,
        action: &'static str,
        (type_name, id): (&'static str, &str),
    ) -> Result<PolicyDecision, PolicyDecision> {
        let caller = self.caller(identity).map_err(|error| failed("principal", &*error))?;
        let (action, resource) = (uid("Action", action), uid(type_name, id));
        // Without the action in the schema, no caller is permitted it.
        let mut callers = self.schema.principals_for_action(&action).into_iter().flatten();
        if !callers.any(|of_type| of_type.to_string() == caller.type_name) {
            return Err(DecisionOutcome::NotPermitted.into());
        }
        let scope_keys = (ScopeKey::all_of(&action, []), ScopeKey::all_of(&resource, []));
        let name = ("name".to_owned(), RestrictedExpression::new_string(id.to_owned()));
        let named = Entity::new(resource.clone(), HashMap::from([name]), HashSet::new())
            .map_err(|error| failed("resource", &error))?;
        let principal = caller.entity.uid();
        let request =
            Request::new(principal, action, resource, Context::empty(), Some(&*self.schema))
                .map_err(|error| failed("request", &error))?;
        let entities = Entities::from_entities([caller.entity.clone(), named], None)
            .map_err(|error| failed("entities", &error))?;
        let mut verdicts = Vec::new();
        let groups = self.index.groups(&scope_keys.0, &scope_keys.1);
        for number in self.index.slice(&groups, &caller.scope_keys) {
            let bucket = self.index.bucket(number);
            bucket.static_policies.evaluate(&request, &entities, &mut verdicts);
            bucket.contextual_policies.evaluate(&request, &entities, &mut verdicts);
        }
        log_errors(&verdicts);
        Ok(self.combine(&verdicts))
    }
}
