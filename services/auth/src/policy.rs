//! Decisions. The only place that knows Cedar.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cedar_policy::{
    Context, Entities, EntityId, EntityTypeName, EntityUid, PartialEntities, PartialEntityUid,
    PartialRequest, PolicyId, Request, RestrictedExpression, Schema,
};
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use metrics::counter;
use moka::sync::Cache;
use serde_json::Value;

use self::{
    caller::{Caller, Reading, Standing},
    catalog::{Catalog, Item},
    evaluate::{Said, Sets, Verdict, outcome},
    head::Index,
    members::Members,
    source::Meta,
};
pub use self::{
    case::{Case, CaseResult, Expected, cases},
    names::suggest,
    problem::{Place, PolicyError, Problem, Severity},
    store::PolicyStore,
    study::{Explained, Explanation, Replayed, Says, Study},
    values::{ALIASES_ANNOTATION, VALUES_ANNOTATION},
    who::Who,
};
use crate::Identity;

mod caller;
mod case;
mod catalog;
mod check;
mod evaluate;
mod head;
mod lint;
mod load;
mod members;
mod names;
mod operation;
mod problem;
mod source;
mod store;
mod study;
#[cfg(test)]
mod tests;
mod values;
mod who;

/// How many pairs of caller and item are remembered, and for how long after they were last asked for.
const STANDINGS_MAX: u64 = 300_000;
const STANDINGS_IDLE: Duration = Duration::from_secs(600);

/// What policy says of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Allowed or not.
    pub answer: Answer,
    /// The `@id`s of the policies that decided, sorted.
    pub policy_ids: Vec<String>,
    /// What the outcome would be if the policies annotated `@shadow` decided too, when that is another answer.
    pub shadow: Option<Shadow>,
    /// Whether other arguments could have another outcome. False only when no policy whose scope fits reads them.
    pub reads_arguments: bool,
}

/// What shadow policies would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The answer that it would be.
    pub answer: Answer,
    /// The `@id`s of the policies that would decide, sorted.
    pub policy_ids: Vec<String>,
}

/// Whether an operation is allowed, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Whatever the arguments are, when they were not given.
    Allow,
    /// It depends on the arguments, which were not given.
    Perhaps,
    /// No policy permits it.
    NotPermitted,
    /// A policy forbids it.
    Forbidden,
    /// The policy catalog has no such item, or knows it behind another RPC.
    NotInCatalog,
    /// The arguments do not fit the action's schema.
    Arguments,
    /// A policy could not be evaluated. An erroring `forbid` must not be passed over.
    Error,
}

impl Answer {
    /// The answer as logs and metrics have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Perhaps => "perhaps",
            Self::NotPermitted => "not_permitted",
            Self::Forbidden => "forbidden",
            Self::NotInCatalog => "not_in_catalog",
            Self::Arguments => "arguments",
            Self::Error => "error",
        }
    }
}

/// The policies in force, with the schema and the catalog that they speak of.
#[derive(Debug)]
pub struct Policies {
    revision: String,
    schema: Schema,
    catalog: Catalog,
    members: Members,
    index: Index,
    /// All policies, without the index.
    all: Sets,
    meta: HashMap<PolicyId, Arc<Meta>>,
    /// Callers of late. They are forgotten with the policies.
    callers: Cache<Identity, Arc<Caller>>,
}

impl Policies {
    /// The revision: a digest of every policy, schema, catalog and membership file.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The catalog's item behind an RPC, for callers that name the RPC.
    #[must_use]
    pub fn item_of_rpc(&self, rpc: &str) -> Option<(Kind, pb::CatalogItem)> {
        self.catalog.of_rpc(rpc).map(|item| (item.kind.operation(), item.as_proto()))
    }

    /// How Cedar writes an item, such as `Tool::"code_search"`.
    #[must_use]
    pub fn uid_of(&self, (kind, item): &(Kind, pb::CatalogItem)) -> Option<String> {
        self.catalog.find(*kind, item).map(|(_, item)| item.uid.to_string())
    }

    /// The scopes that the catalog locks in for an item.
    #[must_use]
    pub fn scopes(&self, kind: Kind, wanted: &pb::CatalogItem) -> &[String] {
        self.catalog.find(kind, wanted).map_or(&[], |(_, item)| &item.scopes)
    }

    /// Everything that the catalog locks in, and how it is reached.
    pub fn items(&self) -> impl Iterator<Item = (Kind, pb::CatalogItem)> {
        self.catalog.items().iter().map(|item| (item.kind.operation(), item.as_proto()))
    }

    /// Decides one operation: on the arguments when they are given, else on whatever they might be.
    ///
    /// What holds whatever the arguments are is found once for each caller and item. Policies that read the
    /// arguments are evaluated on each call.
    pub fn decide(
        &self,
        identity: &Identity,
        kind: Kind,
        wanted: &pb::CatalogItem,
        arguments: Option<&[u8]>,
    ) -> Outcome {
        let Some((number, item)) = self.catalog.find(kind, wanted) else {
            return Answer::NotInCatalog.into();
        };
        let caller = match self.caller(identity) {
            Ok(caller) => caller,
            Err(error) => return failed("principal", &*error),
        };
        if !item.is_for(&caller) {
            return Answer::NotPermitted.into();
        }
        let standing =
            caller.standings[number].get_or_init(|| {
                let standing = self.standing(&caller, item);
                Box::new(standing.unwrap_or_else(|without_arguments| Standing {
                    without_arguments,
                    reading: None,
                }))
            });
        let outcome = match arguments {
            None => standing.without_arguments.clone(),
            Some(arguments) => self.decide_call(&caller, item, standing, arguments),
        };
        if outcome.answer == Answer::Error {
            counter!("auth_policy_errors_total").increment(1);
        }
        outcome
    }

    /// Decides as [`Self::decide`] does, by evaluating every policy anew: what index and memory must agree with.
    pub fn decide_flat(
        &self,
        identity: &Identity,
        kind: Kind,
        wanted: &pb::CatalogItem,
        arguments: Option<&[u8]>,
    ) -> Outcome {
        let Some((_, item)) = self.catalog.find(kind, wanted) else {
            return Answer::NotInCatalog.into();
        };
        let said = Caller::new(identity, &self.members, &self.index, 0)
            .map_err(|error| failed("principal", &*error))
            .and_then(|caller| self.everything_said(&caller, item, arguments));
        said.map_or_else(
            |refused| refused,
            |said| Outcome { reads_arguments: true, ..self.outcome(&said) },
        )
    }

    /// What each policy says, whether its scope fits or not.
    fn everything_said(
        &self,
        caller: &Caller,
        item: &Item,
        arguments: Option<&[u8]>,
    ) -> Result<Vec<Said>, Outcome> {
        if !item.is_for(caller) {
            return Err(Answer::NotPermitted.into());
        }
        let entities = entities(caller, item)?;
        let mut said = Vec::new();
        match arguments {
            None => self.partially(&[&self.all], caller, item, entities, &mut said)?,
            Some(arguments) => {
                let context = self.context(item, arguments).ok_or(Answer::Arguments)?;
                self.all.evaluate(&request(caller, item, context)?, &entities, &mut said);
            }
        }
        Ok(said)
    }

    fn caller(
        &self,
        identity: &Identity,
    ) -> Result<Arc<Caller>, Arc<dyn std::error::Error + Send + Sync>> {
        self.callers
            .try_get_with_by_ref(identity, || {
                Caller::new(identity, &self.members, &self.index, self.catalog.items().len())
                    .map(Arc::new)
            })
            .map_err(|error| error as Arc<dyn std::error::Error + Send + Sync>)
    }

    /// What holds of a caller and an item whatever the arguments are.
    fn standing(&self, caller: &Caller, item: &Item) -> Result<Standing, Outcome> {
        let entities = entities(caller, item)?;
        // No policy that is evaluated here reads the context.
        let request = request(caller, item, Context::empty())?;
        let (mut said, mut buckets) = (Vec::new(), Vec::new());
        for number in self.index.slice(&item.groups, &caller.heads) {
            let bucket = self.index.bucket(number);
            bucket.quiet.evaluate(&request, &entities, &mut said);
            if !bucket.reading.is_empty() {
                buckets.push(number);
            }
        }
        log_errors(&said);
        if buckets.is_empty() {
            return Ok(Standing { without_arguments: self.outcome(&said), reading: None });
        }
        let mut all = said.clone();
        let sets: Vec<_> =
            buckets.iter().map(|number| &self.index.bucket(*number).reading).collect();
        self.partially(&sets, caller, item, entities.clone(), &mut all)?;
        let without_arguments = Outcome { reads_arguments: true, ..self.outcome(&all) };
        let reading = Some(Box::new(Reading { said, buckets, entities }));
        Ok(Standing { without_arguments, reading })
    }

    fn decide_call(
        &self,
        caller: &Caller,
        item: &Item,
        standing: &Standing,
        arguments: &[u8],
    ) -> Outcome {
        let Some(context) = self.context(item, arguments) else { return Answer::Arguments.into() };
        let Some(reading) = &standing.reading else { return standing.without_arguments.clone() };
        let Reading { said, buckets, entities } = &**reading;
        let request = match request(caller, item, context) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        let mut all = Vec::new();
        for number in buckets {
            self.index.bucket(*number).reading.evaluate(&request, entities, &mut all);
        }
        log_errors(&all);
        all.extend_from_slice(said);
        Outcome { reads_arguments: true, ..self.outcome(&all) }
    }

    /// Evaluates with the arguments unknown.
    fn partially(
        &self,
        sets: &[&Sets],
        caller: &Caller,
        item: &Item,
        entities: Entities,
        said: &mut Vec<Said>,
    ) -> Result<(), Outcome> {
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
            set.evaluate_partially(&request, &entities, &self.schema, said);
        }
        Ok(())
    }

    /// The arguments as policies see them, when they fit the action's schema.
    fn context(&self, item: &Item, arguments: &[u8]) -> Option<Context> {
        let input = expression(&serde_json::from_slice(arguments).ok()?)?;
        let context = Context::from_pairs([("input".to_owned(), input)]).ok()?;
        context.validate(&self.schema, &item.action).ok()?;
        Some(context)
    }

    fn outcome(&self, said: &[Said]) -> Outcome {
        outcome(said, |policy| &self.meta[policy])
    }
}

impl Item {
    /// Whether its action applies to such callers.
    fn is_for(&self, caller: &Caller) -> bool {
        self.principal_types.iter().any(|type_name| type_name == caller.type_name)
    }
}

/// A JSON value as Cedar knows it: without null, fractions and numbers that are too large. Cedar's own reader takes
/// some objects for something else, and several times as long.
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

/// All that a decision can look at.
fn entities(caller: &Caller, item: &Item) -> Result<Entities, Outcome> {
    item.entities
        .clone()
        .add_entities([caller.entity.clone()], None)
        .map_err(|error| failed("entities", &error))
}

fn request(caller: &Caller, item: &Item, context: Context) -> Result<Request, Outcome> {
    Request::new(caller.entity.uid(), item.action.clone(), item.uid.clone(), context, None)
        .map_err(|error| failed("request", &error))
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self { answer, policy_ids: Vec::new(), shadow: None, reads_arguments: false }
    }
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Outcome {
    tracing::error!(error, what, "cannot evaluate the policies; denied");
    Answer::Error.into()
}

fn log_errors(said: &[Said]) {
    for Said { policy, verdict } in said {
        if let Verdict::Error(error) = verdict {
            tracing::error!(%policy, error, "a policy could not be evaluated; denied");
        }
    }
}

fn uid(type_name: &str, id: &str) -> EntityUid {
    // INVARIANT: type names are the base schema's, which parse.
    let type_name: EntityTypeName =
        type_name.parse().unwrap_or_else(|_| unreachable!("{type_name}"));
    EntityUid::from_type_name_and_id(type_name, EntityId::new(id))
}
