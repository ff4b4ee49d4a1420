//! Policy decisions. Only this module knows Cedar.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cedar_policy::{
    Context, Entities, EntityId, EntityTypeName, EntityUid, PartialEntities, PartialEntityUid,
    PartialRequest, PolicyId, Request, RestrictedExpression, Schema,
};
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use moka::sync::Cache;
use serde_json::Value;

use self::{
    caller::{ContextualPart, PartialDecision, PolicyCaller},
    catalog::{Catalog, Item},
    evaluate::{PolicySets, PolicyVerdict, Verdict, combine},
    filter::PolicyFilter,
    index::PolicyIndex,
    members::Memberships,
    source::PolicyMeta,
};
pub use self::{
    case::{CaseResult, cases},
    decision::{DecisionOutcome, PolicyDecision, Shadow},
    problem::{PolicyError, Problem, Severity},
    replay::{Replayed, recorded_principal},
    status::{BundleStatus, PolicyStatus, STATUS_PATH},
    store::PolicyStore,
    suggestion::suggest,
    values::{ALIASES_ANNOTATION, VALUES_ANNOTATION},
    workspace::{Contribution, Explained, Explanation, PolicyWorkspace},
};
use crate::{Identity, metrics::POLICY_ERRORS};

pub mod bundle;
mod caller;
mod case;
mod catalog;
mod check;
mod decision;
mod evaluate;
mod filter;
mod index;
mod lint;
mod load;
mod members;
mod names;
mod operation;
mod problem;
mod replay;
mod schema;
mod source;
mod status;
mod store;
mod suggestion;
#[cfg(test)]
mod tests;
mod values;
mod workspace;

/// How many pairs of caller and item are cached, and how long after their last use.
const PARTIAL_DECISIONS_MAX: u64 = 300_000;
const PARTIAL_DECISIONS_IDLE: Duration = Duration::from_secs(600);

/// The end of the revision of policies that deny everything.
const DENYING: &str = "-expired";

/// The policies in force, with their schema and catalog.
#[derive(Debug)]
pub struct Policies {
    revision: String,
    schema: Arc<Schema>,
    catalog: Catalog,
    members: Memberships,
    index: PolicyIndex,
    /// All policies, without the index.
    all: PolicySets,
    meta: HashMap<PolicyId, Arc<PolicyMeta>>,
    /// Recent callers. The cache is dropped with the policies.
    callers: Cache<Identity, Arc<PolicyCaller>>,
}

impl Policies {
    /// The revision: a digest of every policy, schema, catalog and membership file.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The same without any item, so that every decision is a denial.
    fn denying(&self) -> Self {
        Self {
            revision: format!("{}{DENYING}", self.revision),
            schema: Arc::clone(&self.schema),
            catalog: Catalog::default(),
            members: Memberships::default(),
            index: PolicyIndex::default(),
            all: PolicySets::default(),
            meta: HashMap::new(),
            callers: Cache::new(0),
        }
    }

    /// Whether they deny everything.
    fn is_denying(&self) -> bool {
        self.revision.ends_with(DENYING)
    }

    /// The catalog item of an RPC, for callers that name the RPC.
    #[must_use]
    pub fn find_rpc(&self, rpc: &str) -> Option<(Kind, pb::CatalogItem)> {
        self.catalog.find_rpc(rpc).map(|item| (item.kind.operation(), item.as_proto()))
    }

    /// The item's entity uid in Cedar's notation, such as `Tool::"code_search"`.
    #[must_use]
    pub fn uid_of(&self, (kind, item): &(Kind, pb::CatalogItem)) -> Option<String> {
        self.catalog.find(*kind, item).map(|(_, item)| item.uid.to_string())
    }

    /// The scopes that the catalog locks for an item.
    #[must_use]
    pub fn scopes(&self, kind: Kind, wanted: &pb::CatalogItem) -> &[String] {
        self.catalog.find(kind, wanted).map_or(&[], |(_, item)| &item.scopes)
    }

    /// All items of the catalog with their operations.
    pub fn items(&self) -> impl Iterator<Item = (Kind, pb::CatalogItem)> {
        self.catalog.items().iter().map(|item| (item.kind.operation(), item.as_proto()))
    }

    /// Decides one operation: for the given arguments, else for all possible arguments.
    ///
    /// The part that is independent of the arguments is cached per caller and item. Policies that
    /// read the arguments are evaluated on each call.
    pub fn decide(
        &self,
        identity: &Identity,
        kind: Kind,
        wanted: &pb::CatalogItem,
        arguments: Option<&[u8]>,
    ) -> PolicyDecision {
        let Some((number, item)) = self.catalog.find(kind, wanted) else {
            return DecisionOutcome::NotInCatalog.into();
        };
        let caller = match self.caller(identity) {
            Ok(caller) => caller,
            Err(error) => return failed("principal", &*error),
        };
        if !item.is_for(&caller) {
            return DecisionOutcome::NotPermitted.into();
        }
        let partial = self.partial_decision(&caller, number, item);
        let decision = match arguments {
            None => partial.without_arguments.clone(),
            Some(arguments) => self.decide_call(&caller, item, partial, arguments),
        };
        if decision.outcome == DecisionOutcome::Error {
            POLICY_ERRORS.get().increment(1);
        }
        decision
    }

    /// Decides on many items for one caller, each for all possible arguments.
    pub(crate) fn filter(&self, identity: &Identity, kind: Kind) -> PolicyFilter<'_> {
        PolicyFilter::new(self, identity, kind)
    }

    /// The part of a decision that is independent of the arguments. It is evaluated once.
    fn partial_decision<'a>(
        &self,
        caller: &'a PolicyCaller,
        number: usize,
        item: &Item,
    ) -> &'a PartialDecision {
        caller.partial_decisions[number].get_or_init(|| {
            let partial = self.decide_partially(caller, number, item);
            Box::new(partial.unwrap_or_else(|without_arguments| PartialDecision {
                without_arguments,
                contextual: None,
            }))
        })
    }

    /// Like [`Self::decide`], but evaluates every policy without index and caches: the reference
    /// for tests.
    pub fn decide_flat(
        &self,
        identity: &Identity,
        kind: Kind,
        wanted: &pb::CatalogItem,
        arguments: Option<&[u8]>,
    ) -> PolicyDecision {
        let Some((_, item)) = self.catalog.find(kind, wanted) else {
            return DecisionOutcome::NotInCatalog.into();
        };
        let verdicts = PolicyCaller::new(identity, &self.members, &self.index, 0)
            .map_err(|error| failed("principal", &*error))
            .and_then(|caller| self.evaluate_all(&caller, item, arguments));
        verdicts.map_or_else(
            |denied| denied,
            |verdicts| PolicyDecision { reads_arguments: true, ..self.combine(&verdicts) },
        )
    }

    /// The verdict of every policy, regardless of its scope.
    fn evaluate_all(
        &self,
        caller: &PolicyCaller,
        item: &Item,
        arguments: Option<&[u8]>,
    ) -> Result<Vec<PolicyVerdict>, PolicyDecision> {
        if !item.is_for(caller) {
            return Err(DecisionOutcome::NotPermitted.into());
        }
        let entities = entities(caller, item)?;
        let mut verdicts = Vec::new();
        match arguments {
            None => {
                self.evaluate_partially(&[&self.all], caller, item, entities, &mut verdicts)?;
            }
            Some(arguments) => {
                let context = self.context(item, arguments).ok_or(DecisionOutcome::Arguments)?;
                self.all.evaluate(&request(caller, item, context)?, &entities, &mut verdicts);
            }
        }
        Ok(verdicts)
    }

    fn caller(
        &self,
        identity: &Identity,
    ) -> Result<Arc<PolicyCaller>, Arc<dyn std::error::Error + Send + Sync>> {
        self.callers
            .try_get_with_by_ref(identity, || {
                PolicyCaller::new(identity, &self.members, &self.index, self.catalog.items().len())
                    .map(Arc::new)
            })
            .map_err(|error| error as Arc<dyn std::error::Error + Send + Sync>)
    }

    /// The part of the decision that is independent of the arguments.
    fn decide_partially(
        &self,
        caller: &PolicyCaller,
        number: usize,
        item: &Item,
    ) -> Result<PartialDecision, PolicyDecision> {
        let entities = entities(caller, item)?;
        // No policy that is evaluated here reads the context.
        let request = request(caller, item, Context::empty())?;
        let (mut verdicts, mut buckets) = (Vec::new(), Vec::new());
        for number in self.index.slice(self.catalog.groups(number), &caller.scope_keys) {
            let bucket = self.index.bucket(number);
            bucket.static_policies.evaluate(&request, &entities, &mut verdicts);
            if !bucket.contextual_policies.is_empty() {
                buckets.push(number);
            }
        }
        log_errors(&verdicts);
        if buckets.is_empty() {
            let without_arguments = self.combine(&verdicts);
            return Ok(PartialDecision { without_arguments, contextual: None });
        }
        let mut all = verdicts.clone();
        let sets: Vec<_> =
            buckets.iter().map(|number| &self.index.bucket(*number).contextual_policies).collect();
        self.evaluate_partially(&sets, caller, item, entities.clone(), &mut all)?;
        let without_arguments = PolicyDecision { reads_arguments: true, ..self.combine(&all) };
        let contextual = Some(Box::new(ContextualPart { verdicts, buckets, entities }));
        Ok(PartialDecision { without_arguments, contextual })
    }

    fn decide_call(
        &self,
        caller: &PolicyCaller,
        item: &Item,
        partial: &PartialDecision,
        arguments: &[u8],
    ) -> PolicyDecision {
        let Some(context) = self.context(item, arguments) else {
            return DecisionOutcome::Arguments.into();
        };
        let Some(contextual) = &partial.contextual else {
            return partial.without_arguments.clone();
        };
        let ContextualPart { verdicts, buckets, entities } = &**contextual;
        let request = match request(caller, item, context) {
            Ok(request) => request,
            Err(denied) => return denied,
        };
        let mut all = Vec::new();
        for number in buckets {
            let policies = &self.index.bucket(*number).contextual_policies;
            policies.evaluate(&request, entities, &mut all);
        }
        log_errors(&all);
        all.extend_from_slice(verdicts);
        PolicyDecision { reads_arguments: true, ..self.combine(&all) }
    }

    /// Evaluates policies with unknown arguments.
    fn evaluate_partially(
        &self,
        sets: &[&PolicySets],
        caller: &PolicyCaller,
        item: &Item,
        entities: Entities,
        verdicts: &mut Vec<PolicyVerdict>,
    ) -> Result<(), PolicyDecision> {
        let entities = PartialEntities::from_concrete(entities, &self.schema)
            .map_err(|error| failed("entities", &error))?;
        let request = PartialRequest::new(
            PartialEntityUid::from_concrete(caller.entity.uid()),
            item.action.clone(),
            PartialEntityUid::from_concrete(item.uid.clone()),
            None,
            &self.schema,
        );
        let request = request.map_err(|error| failed("request", &error))?;
        for set in sets {
            set.evaluate_partially(&request, &entities, &self.schema, verdicts);
        }
        Ok(())
    }

    /// The arguments as policies see them. `None` if they do not match the action's schema.
    fn context(&self, item: &Item, arguments: &[u8]) -> Option<Context> {
        let input = expression(&serde_json::from_slice(arguments).ok()?)?;
        let context = Context::from_pairs([("input".to_owned(), input)]).ok()?;
        context.validate(&self.schema, &item.action).ok()?;
        Some(context)
    }

    fn combine(&self, verdicts: &[PolicyVerdict]) -> PolicyDecision {
        combine(verdicts, |policy| &self.meta[policy])
    }
}

impl Item {
    /// Whether its action applies to this type of caller.
    fn is_for(&self, caller: &PolicyCaller) -> bool {
        self.principal_types.iter().any(|type_name| type_name == caller.type_name)
    }
}

/// A JSON value in Cedar: null, fractions and too large numbers are unsupported. Cedar's own parser
/// treats some objects specially and takes several times as long.
fn expression(json: &Value) -> Option<RestrictedExpression> {
    Some(match json {
        Value::Bool(value) => RestrictedExpression::new_bool(*value),
        Value::Number(number) => RestrictedExpression::new_long(number.as_i64()?),
        Value::String(text) => RestrictedExpression::new_string(text.clone()),
        Value::Array(items) => {
            RestrictedExpression::new_set(items.iter().map(expression).collect::<Option<Vec<_>>>()?)
        }
        Value::Object(fields) => {
            let fields =
                fields.iter().map(|(name, value)| Some((name.clone(), expression(value)?)));
            RestrictedExpression::new_record(fields.collect::<Option<Vec<_>>>()?).ok()?
        }
        Value::Null => return None,
    })
}

/// The entities of a decision.
fn entities(caller: &PolicyCaller, item: &Item) -> Result<Entities, PolicyDecision> {
    item.entities
        .clone()
        .add_entities([caller.entity.clone()], None)
        .map_err(|error| failed("entities", &error))
}

fn request(
    caller: &PolicyCaller,
    item: &Item,
    context: Context,
) -> Result<Request, PolicyDecision> {
    Request::new(caller.entity.uid(), item.action.clone(), item.uid.clone(), context, None)
        .map_err(|error| failed("request", &error))
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> PolicyDecision {
    tracing::error!(error, what, "cannot evaluate the policies; denied");
    DecisionOutcome::Error.into()
}

fn log_errors(verdicts: &[PolicyVerdict]) {
    for PolicyVerdict { policy, verdict } in verdicts {
        if let Verdict::Error(error) = verdict {
            tracing::error!(%policy, error, "a policy could not be evaluated; denied");
        }
    }
}

fn uid(type_name: &str, id: &str) -> EntityUid {
    // INVARIANT: type names are those of the base schema, which parse.
    let type_name: EntityTypeName =
        type_name.parse().unwrap_or_else(|_| unreachable!("{type_name}"));
    EntityUid::from_type_name_and_id(type_name, EntityId::new(id))
}
