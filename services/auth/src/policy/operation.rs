//! Operations on what no catalog lists.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Context, Entities, Entity, Request, RestrictedExpression};
use metrics::counter;

use super::{Answer, Outcome, Policies, failed, head::Head, log_errors, uid};
use crate::Identity;

impl Policies {
    /// Decides an operation on a resource that no catalog lists, such as `Action::"revoke"` on an `Issuer`. It has no
    /// arguments; the resource has its id as the attribute `name` too.
    pub fn decide_operation(
        &self,
        identity: &Identity,
        action: &'static str,
        resource: (&'static str, &str),
    ) -> Outcome {
        let outcome = self.operation(identity, action, resource).unwrap_or_else(|refused| refused);
        if outcome.answer == Answer::Error {
            counter!("auth_policy_errors_total").increment(1);
        }
        outcome
    }

    fn operation(
        &self,
        identity: &Identity,
        action: &'static str,
        (type_name, id): (&'static str, &str),
    ) -> Result<Outcome, Outcome> {
        let caller = self.caller(identity).map_err(|error| failed("principal", &*error))?;
        let (action, resource) = (uid("Action", action), uid(type_name, id));
        // A schema without the action permits it to nobody.
        let mut callers = self.schema.principals_for_action(&action).into_iter().flatten();
        if !callers.any(|of_type| of_type.to_string() == caller.type_name) {
            return Err(Answer::NotPermitted.into());
        }
        let heads = (Head::all_of(&action, []), Head::all_of(&resource, []));
        let name = ("name".to_owned(), RestrictedExpression::new_string(id.to_owned()));
        let named = Entity::new(resource.clone(), HashMap::from([name]), HashSet::new())
            .map_err(|error| failed("resource", &error))?;
        let principal = caller.entity.uid();
        let request =
            Request::new(principal, action, resource, Context::empty(), Some(&self.schema))
                .map_err(|error| failed("request", &error))?;
        let entities = Entities::from_entities([caller.entity.clone(), named], None)
            .map_err(|error| failed("entities", &error))?;
        let mut said = Vec::new();
        for number in self.index.slice(&self.index.groups(&heads.0, &heads.1), &caller.heads) {
            let bucket = self.index.bucket(number);
            bucket.quiet.evaluate(&request, &entities, &mut said);
            bucket.reading.evaluate(&request, &entities, &mut said);
        }
        log_errors(&said);
        Ok(self.outcome(&said))
    }
}
