//! The caller as policies see it, and what they have said of it.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use cedar_policy::{Entities, Entity, EntityAttrEvaluationError, EntityUid, RestrictedExpression};

use super::{
    Outcome,
    evaluate::Said,
    head::{Head, Index},
    members::Members,
    uid,
};
use crate::Identity;

/// A caller that policies have been asked about.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) entity: Entity,
    pub(super) type_name: &'static str,
    /// Those of its heads that some policy has.
    pub(super) heads: Vec<Head>,
    /// What is known already, for each item of the catalog.
    pub(super) standings: Box<[OnceLock<Box<Standing>>]>,
}

/// What holds of a caller and an item whatever the arguments are.
#[derive(Debug)]
pub(super) struct Standing {
    /// The answer when the arguments are unknown.
    pub(super) without_arguments: Outcome,
    /// What has to be asked again on every call. Absent: nothing.
    pub(super) reading: Option<Box<Reading>>,
}

/// Policies that read the arguments.
#[derive(Debug)]
pub(super) struct Reading {
    /// The verdicts of those that do not.
    pub(super) said: Vec<Said>,
    pub(super) buckets: Vec<usize>,
    pub(super) entities: Entities,
}

impl Caller {
    pub(super) fn new(
        identity: &Identity,
        members: &Members,
        index: &Index,
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
        let heads = index.principal_heads(Head::all_of(&uid_of_caller, &parents));
        let entity = entity(identity, uid_of_caller, parents)?;
        let standings = (0..items).map(|_| OnceLock::new()).collect();
        Ok(Self { entity, type_name, heads, standings })
    }
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
