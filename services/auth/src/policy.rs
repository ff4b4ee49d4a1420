//! Decisions. The only place that knows Cedar.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PartialEntities,
    PartialEntityUid, PartialRequest, PolicyId, PolicySet, Request, RestrictedExpression, Schema,
};
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};

use crate::authn::Identity;

pub(crate) use self::load::PolicyError;

mod load;
#[cfg(test)]
mod tests;

/// What policy says of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    /// The `@id`s of the policies that decided, sorted.
    pub(crate) policy_ids: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
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

/// The policies in force, with the schema and the catalog that they speak of.
#[derive(Debug)]
pub(crate) struct Policies {
    authorizer: Authorizer,
    policies: PolicySet,
    schema: Schema,
    items: HashMap<(ItemKind, String), Item>,
    revision: String,
}

/// A tool, resource or prompt that the catalog locks in.
#[derive(Debug)]
struct Item {
    rpc: String,
    /// The RPC that completes its arguments.
    completion_rpc: Option<String>,
    /// The RPC that streams its changes.
    watch_rpc: Option<String>,
    service: String,
    action: EntityUid,
    uid: EntityUid,
    /// The item, its service and its action with their ancestors: all that a decision on it needs besides
    /// the principal.
    entities: Vec<Entity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ItemKind {
    Tool,
    Resource,
    Prompt,
}

impl ItemKind {
    const ALL: [Self; 3] = [Self::Tool, Self::Resource, Self::Prompt];

    fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::CallTool => Some(Self::Tool),
            Kind::ReadResource => Some(Self::Resource),
            Kind::GetPrompt => Some(Self::Prompt),
            Kind::Unspecified | Kind::Connect | Kind::Complete | Kind::WatchResource => None,
        }
    }

    fn type_name(self) -> &'static str {
        match self {
            Self::Tool => "Tool",
            Self::Resource => "Resource",
            Self::Prompt => "Prompt",
        }
    }
}

impl Policies {
    /// The revision: a digest of every policy, schema and catalog file.
    pub(crate) fn revision(&self) -> &str {
        &self.revision
    }

    /// The catalog's item behind an RPC, for callers that name the RPC.
    pub(crate) fn item_of_rpc(&self, rpc: &str) -> Option<(Kind, pb::CatalogItem)> {
        let ((kind, name), item) = self.items.iter().find(|(_, item)| item.rpc == rpc)?;
        let kind = match kind {
            ItemKind::Tool => Kind::CallTool,
            ItemKind::Resource => Kind::ReadResource,
            ItemKind::Prompt => Kind::GetPrompt,
        };
        let item = pb::CatalogItem {
            name: name.clone(),
            service: item.service.clone(),
            rpc: item.rpc.clone(),
            scopes: Vec::new(),
        };
        Some((kind, item))
    }

    /// Decides one operation: on the arguments when they are given, else on whatever they might be.
    pub(crate) fn decide(
        &self,
        identity: &Identity,
        kind: Kind,
        wanted: &pb::CatalogItem,
        arguments: Option<&[u8]>,
    ) -> Outcome {
        let Some(item) = self.item(kind, wanted) else { return Answer::NotInCatalog.into() };
        let principal = match principal(identity) {
            Ok(principal) => principal,
            Err(error) => return failed("principal", &error),
        };
        let entities = item.entities.iter().cloned().chain([principal.clone()]);
        let entities = match Entities::from_entities(entities, None) {
            Ok(entities) => entities,
            Err(error) => return failed("entities", &error),
        };
        match arguments {
            Some(arguments) => self.decide_call(item, principal.uid(), &entities, arguments),
            None => self.decide_listing(item, principal.uid(), entities),
        }
    }

    /// The item that is meant. The edge's word for which RPC stands behind a name is checked against what was
    /// locked in.
    fn item(&self, kind: Kind, wanted: &pb::CatalogItem) -> Option<&Item> {
        let of_kind = |kind| self.items.get(&(kind, wanted.name.clone()));
        let item = match kind {
            Kind::Complete => [ItemKind::Prompt, ItemKind::Resource]
                .into_iter()
                .filter_map(of_kind)
                .find(|item| item.completion_rpc.as_ref() == Some(&wanted.rpc)),
            Kind::WatchResource => {
                of_kind(ItemKind::Resource).filter(|item| item.watch_rpc.as_ref() == Some(&wanted.rpc))
            }
            kind => of_kind(ItemKind::of(kind)?).filter(|item| item.rpc == wanted.rpc),
        };
        item.filter(|item| item.service == wanted.service)
    }

    fn decide_call(
        &self,
        item: &Item,
        principal: EntityUid,
        entities: &Entities,
        arguments: &[u8],
    ) -> Outcome {
        let context = serde_json::from_slice(arguments).ok().and_then(|input: serde_json::Value| {
            let context = serde_json::json!({ "input": input });
            Context::from_json_value(context, Some((&self.schema, &item.action))).ok()
        });
        let request = context.and_then(|context| {
            let (action, resource) = (item.action.clone(), item.uid.clone());
            Request::new(principal, action, resource, context, Some(&self.schema)).ok()
        });
        let Some(request) = request else { return Answer::Arguments.into() };

        let response = self.authorizer.is_authorized(&request, &self.policies, entities);
        let diagnostics = response.diagnostics();
        let mut errors = diagnostics.errors().peekable();
        if errors.peek().is_some() {
            for error in errors {
                tracing::error!(%error, "a policy could not be evaluated; denied");
            }
            return Answer::Error.into();
        }
        let policy_ids = ids(diagnostics.reason());
        let answer = match response.decision() {
            Decision::Allow => Answer::Allow,
            Decision::Deny if policy_ids.is_empty() => Answer::NotPermitted,
            Decision::Deny => Answer::Forbidden,
        };
        Outcome { answer, policy_ids }
    }

    /// Decides with the arguments unknown, by typed partial evaluation.
    fn decide_listing(&self, item: &Item, principal: EntityUid, entities: Entities) -> Outcome {
        let entities = match PartialEntities::from_concrete(entities, &self.schema) {
            Ok(entities) => entities,
            Err(error) => return failed("entities", &error),
        };
        let request = PartialRequest::new(
            PartialEntityUid::from_concrete(principal),
            item.action.clone(),
            PartialEntityUid::from_concrete(item.uid.clone()),
            None,
            &self.schema,
        );
        let request = match request {
            Ok(request) => request,
            Err(error) => return failed("request", &error),
        };
        let response = match self.policies.tpe(&request, &entities, &self.schema) {
            Ok(response) => response,
            Err(error) => return failed("partial evaluation", &error),
        };
        let errors: Vec<_> = response.error_permits().chain(response.error_forbids()).collect();
        if !errors.is_empty() {
            tracing::error!(policies = ?errors, "a policy could not be evaluated; denied");
            return Answer::Error.into();
        }
        let forbids = ids(response.true_forbids());
        match response.decision() {
            Some(Decision::Allow) => {
                Outcome { answer: Answer::Allow, policy_ids: ids(response.true_permits()) }
            }
            None => Answer::Perhaps.into(),
            Some(Decision::Deny) if forbids.is_empty() => Answer::NotPermitted.into(),
            Some(Decision::Deny) => Outcome { answer: Answer::Forbidden, policy_ids: forbids },
        }
    }
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self { answer, policy_ids: Vec::new() }
    }
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Outcome {
    tracing::error!(error, what, "cannot evaluate the policies; denied");
    Answer::Error.into()
}

fn ids<'a>(policies: impl Iterator<Item = &'a PolicyId>) -> Vec<String> {
    let mut ids: Vec<_> = policies.map(|id| AsRef::<str>::as_ref(id).to_owned()).collect();
    ids.sort_unstable();
    ids
}

fn uid(type_name: &str, id: &str) -> EntityUid {
    // INVARIANT: type names are the base schema's, which parse.
    let type_name: EntityTypeName = type_name.parse().unwrap_or_else(|_| unreachable!("{type_name}"));
    EntityUid::from_type_name_and_id(type_name, EntityId::new(id))
}

/// The caller as Cedar sees it.
fn principal(identity: &Identity) -> Result<Entity, Box<cedar_policy::EntityAttrEvaluationError>> {
    let pb::Principal { issuer, subject, client_id, tenant, scopes } = &identity.principal;
    let type_name = if identity.workload { "Workload" } else { "User" };
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let mut attributes = HashMap::from([
        ("issuer".to_owned(), text(issuer)),
        ("subject".to_owned(), text(subject)),
        ("client".to_owned(), text(client_id)),
        ("scopes".to_owned(), RestrictedExpression::new_set(scopes.iter().map(|scope| text(scope)))),
        ("mfa".to_owned(), RestrictedExpression::new_bool(identity.mfa)),
    ]);
    attributes.extend(identity.email.as_ref().map(|email| ("email".to_owned(), text(email))));
    let groups = identity.groups.iter().map(|group| uid("Group", group));
    let tenant = Some(tenant).filter(|tenant| !tenant.is_empty()).map(|tenant| uid("Tenant", tenant));
    let roles = identity.roles.iter().map(|role| uid("Role", role));
    let parents: HashSet<_> = groups.chain(roles).chain(tenant).collect();
    Ok(Entity::new(uid(type_name, &format!("{issuer}#{subject}")), attributes, parents)?)
}
