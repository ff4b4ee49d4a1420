//! Decisions on the items of a list.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as pb, operation::Kind};

use super::{DecisionOutcome, Policies, caller::PolicyCaller, failed};
use crate::{Identity, metrics::POLICY_ERRORS};

/// Decides on items for one caller, each for all possible arguments, like [`Policies::decide`]
/// without arguments. The caller is looked up once.
pub(crate) struct PolicyFilter<'a> {
    policies: &'a Policies,
    kind: Kind,
    /// Absent: it cannot be evaluated, and nothing is allowed.
    caller: Option<Arc<PolicyCaller>>,
}

impl<'a> PolicyFilter<'a> {
    pub(super) fn new(policies: &'a Policies, identity: &Identity, kind: Kind) -> Self {
        let caller = policies.caller(identity);
        let caller = caller.inspect_err(|error| _ = failed("principal", &**error)).ok();
        Self { policies, kind, caller }
    }

    /// Whether the decision on this item needs no evaluation.
    pub(crate) fn is_cached(&self, wanted: &pb::CatalogItem) -> bool {
        let (Some(caller), Some((number, _))) =
            (&self.caller, self.policies.catalog.find(self.kind, wanted))
        else {
            return true;
        };
        caller.partial_decisions[number].get().is_some()
    }

    /// The outcome for this item.
    pub(crate) fn outcome(&self, wanted: &pb::CatalogItem) -> DecisionOutcome {
        let Some((number, item)) = self.policies.catalog.find(self.kind, wanted) else {
            return DecisionOutcome::NotInCatalog;
        };
        let Some(caller) = &self.caller else { return DecisionOutcome::Error };
        if !item.is_for(caller) {
            return DecisionOutcome::NotPermitted;
        }
        let partial = self.policies.partial_decision(caller, number, item);
        let outcome = partial.without_arguments.outcome;
        if outcome == DecisionOutcome::Error {
            POLICY_ERRORS.get().increment(1);
        }
        outcome
    }
}
