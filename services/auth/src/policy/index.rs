//! An index from scopes to policies that could apply.
//!
//! A scope has three tests. Each tests whether an entity equals another, has a type, or is in
//! another entity. An entity passes only tests that are among its own scope keys, so policies under
//! other keys are false for it. A scope cannot fail to evaluate. Policies under matching keys are
//! evaluated completely, including their scopes.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, PrincipalConstraint, ResourceConstraint,
};

use super::{evaluate::PolicySets, source::ParsedPolicy};

/// One test of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ScopeKey {
    Any,
    Is(EntityTypeName),
    Eq(EntityUid),
    In(EntityUid),
}

impl ScopeKey {
    /// Every key that an entity with these ancestors matches.
    pub(super) fn all_of<'a>(
        uid: &EntityUid,
        ancestors: impl IntoIterator<Item = &'a EntityUid>,
    ) -> Vec<Self> {
        let own = [
            Self::Any,
            Self::Is(uid.type_name().clone()),
            Self::Eq(uid.clone()),
            Self::In(uid.clone()),
        ];
        own.into_iter().chain(ancestors.into_iter().cloned().map(Self::In)).collect()
    }

    fn of_principal(constraint: PrincipalConstraint) -> Self {
        match constraint {
            PrincipalConstraint::Any => Self::Any,
            PrincipalConstraint::Is(type_name) => Self::Is(type_name),
            PrincipalConstraint::Eq(uid) => Self::Eq(uid),
            PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => Self::In(uid),
        }
    }

    fn of_resource(constraint: ResourceConstraint) -> Self {
        match constraint {
            ResourceConstraint::Any => Self::Any,
            ResourceConstraint::Is(type_name) => Self::Is(type_name),
            ResourceConstraint::Eq(uid) => Self::Eq(uid),
            ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => Self::In(uid),
        }
    }

    /// A list of actions has several keys. An item under two of them finds the policy twice, with
    /// the same result.
    fn of_action(constraint: ActionConstraint) -> Vec<Self> {
        match constraint {
            ActionConstraint::Any => vec![Self::Any],
            ActionConstraint::Eq(uid) => vec![Self::Eq(uid)],
            ActionConstraint::In(uids) => uids.into_iter().map(Self::In).collect(),
        }
    }
}

/// Policies with the same scope keys.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Policies that do not read the arguments.
    pub(super) static_policies: PolicySets,
    /// Policies that read the arguments.
    pub(super) contextual_policies: PolicySets,
}

impl Bucket {
    /// The `@id`s of all its policies.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.static_policies.ids().chain(self.contextual_policies.ids())
    }
}

/// All policies by their scope keys.
#[derive(Debug, Default)]
pub(super) struct PolicyIndex {
    /// Buckets by principal key, for each pair of action key and resource key.
    groups: Vec<HashMap<ScopeKey, usize>>,
    by_keys: HashMap<(ScopeKey, ScopeKey), usize>,
    buckets: Vec<Bucket>,
    principal_keys: HashSet<ScopeKey>,
}

impl PolicyIndex {
    pub(super) fn new<'a>(policies: impl IntoIterator<Item = &'a ParsedPolicy>) -> Self {
        let mut index = Self::default();
        for policy in policies {
            index.add(policy);
        }
        index
    }

    fn add(&mut self, parsed: &ParsedPolicy) {
        let policy = &parsed.policy;
        let principal = ScopeKey::of_principal(policy.principal_constraint());
        let resource = ScopeKey::of_resource(policy.resource_constraint());
        for action in ScopeKey::of_action(policy.action_constraint()) {
            let group = *self.by_keys.entry((action, resource.clone())).or_insert_with(|| {
                self.groups.push(HashMap::new());
                self.groups.len() - 1
            });
            let bucket = *self.groups[group].entry(principal.clone()).or_insert_with(|| {
                self.buckets.push(Bucket::default());
                self.buckets.len() - 1
            });
            let Bucket { static_policies, contextual_policies } = &mut self.buckets[bucket];
            let policies =
                if parsed.reads_arguments { contextual_policies } else { static_policies };
            policies.add(policy);
        }
        self.principal_keys.insert(principal);
    }

    /// The groups of buckets with the policies for an action and a resource.
    pub(super) fn groups(&self, actions: &[ScopeKey], resources: &[ScopeKey]) -> Vec<usize> {
        let pairs = actions
            .iter()
            .flat_map(|action| resources.iter().map(|resource| (action.clone(), resource.clone())));
        pairs.filter_map(|pair| self.by_keys.get(&pair).copied()).collect()
    }

    /// The keys of a principal that occur in some policy.
    pub(super) fn principal_keys(&self, mut keys: Vec<ScopeKey>) -> Vec<ScopeKey> {
        keys.retain(|key| self.principal_keys.contains(key));
        keys
    }

    /// The buckets of these groups for a principal with these keys.
    pub(super) fn slice(&self, groups: &[usize], keys: &[ScopeKey]) -> impl Iterator<Item = usize> {
        groups.iter().flat_map(move |group| {
            let of_group = &self.groups[*group];
            keys.iter().filter_map(move |key| of_group.get(key).copied())
        })
    }

    /// The buckets of these groups for all principals.
    pub(super) fn all(&self, groups: &[usize]) -> impl Iterator<Item = usize> {
        groups.iter().flat_map(|group| self.groups[*group].values().copied())
    }

    pub(super) fn bucket(&self, index: usize) -> &Bucket {
        &self.buckets[index]
    }
}
