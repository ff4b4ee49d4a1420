//! The caller as policies see it, with its cached partial decisions.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use cedar_policy::{Entities, Entity, EntityAttrEvaluationError, EntityUid, RestrictedExpression};

use super::{
    PolicyDecision,
    evaluate::PolicyVerdict,
    index::{PolicyIndex, ScopeKey},
    members::Memberships,
    uid,
};
use crate::Identity;

/// A caller as policies see it.
#[derive(Debug)]
pub(super) struct PolicyCaller {
    pub(super) entity: Entity,
    pub(super) type_name: &'static str,
    /// Its scope keys that occur in some policy.
    pub(super) scope_keys: Vec<ScopeKey>,
    /// Cached partial decisions, one per item of the catalog.
    pub(super) partial_decisions: Box<[OnceLock<Box<PartialDecision>>]>,
}

/// The part of the decision on a caller and an item that is independent of the arguments.
#[derive(Debug)]
pub(super) struct PartialDecision {
    /// The decision with unknown arguments.
    pub(super) without_arguments: PolicyDecision,
    /// What each call must evaluate. Absent: nothing.
    pub(super) contextual: Option<Box<ContextualPart>>,
}

/// The inputs for evaluating policies that read the arguments.
#[derive(Debug)]
pub(super) struct ContextualPart {
    /// The verdicts of the other policies.
    pub(super) verdicts: Vec<PolicyVerdict>,
    pub(super) buckets: Vec<usize>,
    pub(super) entities: Entities,
}

impl PolicyCaller {
    pub(super) fn new(
        identity: &Identity,
        members: &Memberships,
        index: &PolicyIndex,
        items: usize,
    ) -> Result<Self, Box<EntityAttrEvaluationError>> {
        let type_name = if identity.workload { "Workload" } else { "User" };
        let principal = &identity.principal;
        let uid_of_caller = uid(type_name, &format!("{}#{}", principal.issuer, principal.subject));
        let groups = identity.groups.iter().map(|group| uid("Group", group));
        let roles = identity.roles.iter().map(|role| uid("Role", role));
        let mut parents = members.closure(&uid_of_caller, groups.chain(roles));
        if !principal.tenant.is_empty() {
            parents.insert(uid("Tenant", &principal.tenant));
        }
        let scope_keys = index.principal_keys(ScopeKey::all_of(&uid_of_caller, &parents));
        let entity = entity(identity, uid_of_caller, parents)?;
        let partial_decisions = (0..items).map(|_| OnceLock::new()).collect();
        Ok(Self { entity, type_name, scope_keys, partial_decisions })
    }
}

/// Whether the entity is a principal.
pub(super) fn is_principal(uid: &EntityUid) -> bool {
    matches!(uid.type_name().to_string().as_str(), "User" | "Workload")
}

fn entity(
    identity: &Identity,
    uid: EntityUid,
    parents: HashSet<EntityUid>,
) -> Result<Entity, Box<EntityAttrEvaluationError>> {
    let principal = &identity.principal;
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let mut attributes = HashMap::from([
        ("issuer".to_owned(), text(&principal.issuer)),
        ("subject".to_owned(), text(&principal.subject)),
        ("client".to_owned(), text(&principal.client_id)),
        (
            "scopes".to_owned(),
            RestrictedExpression::new_set(principal.scopes.iter().map(|scope| text(scope))),
        ),
        ("mfa".to_owned(), RestrictedExpression::new_bool(identity.mfa)),
    ]);
    attributes.extend(identity.email.as_ref().map(|email| ("email".to_owned(), text(email))));
    if !principal.tenant.is_empty() {
        let tenant = RestrictedExpression::new_entity_uid(self::uid("Tenant", &principal.tenant));
        attributes.insert("tenant".to_owned(), tenant);
    }
    Ok(Entity::new(uid, attributes, parents)?)
}
