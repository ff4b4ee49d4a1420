//! Which policies could apply: an index by the heads of their scopes.
//!
//! A scope is three tests, each of which asks whether an entity is a certain one, is of a type, or is in another. An
//! entity passes only tests that are among its own heads, so policies under other heads are false for it, and a
//! scope cannot err. What is found under the right heads is evaluated whole, scope and all.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, PrincipalConstraint, ResourceConstraint,
};

use super::{evaluate::Sets, source::ParsedPolicy};

/// One test of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Head {
    Any,
    Is(EntityTypeName),
    Eq(EntityUid),
    In(EntityUid),
}

impl Head {
    /// Every head that an entity with these ancestors passes.
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

    /// A list of actions has several heads. An item in two of them finds the policy twice, which changes nothing.
    fn of_action(constraint: ActionConstraint) -> Vec<Self> {
        match constraint {
            ActionConstraint::Any => vec![Self::Any],
            ActionConstraint::Eq(uid) => vec![Self::Eq(uid)],
            ActionConstraint::In(uids) => uids.into_iter().map(Self::In).collect(),
        }
    }
}

/// Policies with the same heads.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Those that do not read the arguments.
    pub(super) quiet: Sets,
    /// Those that do.
    pub(super) reading: Sets,
}

impl Bucket {
    /// The `@id`s of all of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.quiet.ids().chain(self.reading.ids())
    }
}

/// All policies, by their heads.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Buckets by principal head, for each pair of action head and resource head.
    groups: Vec<HashMap<Head, usize>>,
    by_heads: HashMap<(Head, Head), usize>,
    buckets: Vec<Bucket>,
    principal_heads: HashSet<Head>,
}

impl Index {
    pub(super) fn new<'a>(policies: impl IntoIterator<Item = &'a ParsedPolicy>) -> Self {
        let mut index = Self::default();
        for policy in policies {
            index.add(policy);
        }
        index
    }

    fn add(&mut self, parsed: &ParsedPolicy) {
        let policy = &parsed.policy;
        let principal = Head::of_principal(policy.principal_constraint());
        let resource = Head::of_resource(policy.resource_constraint());
        for action in Head::of_action(policy.action_constraint()) {
            let group = *self.by_heads.entry((action, resource.clone())).or_insert_with(|| {
                self.groups.push(HashMap::new());
                self.groups.len() - 1
            });
            let bucket = *self.groups[group].entry(principal.clone()).or_insert_with(|| {
                self.buckets.push(Bucket::default());
                self.buckets.len() - 1
            });
            let Bucket { quiet, reading } = &mut self.buckets[bucket];
            if parsed.reads_arguments { reading } else { quiet }.add(policy);
        }
        self.principal_heads.insert(principal);
    }

    /// The groups of buckets that hold the policies for an action and a resource.
    pub(super) fn groups(&self, actions: &[Head], resources: &[Head]) -> Vec<usize> {
        let pairs = actions
            .iter()
            .flat_map(|action| resources.iter().map(|resource| (action.clone(), resource.clone())));
        pairs.filter_map(|pair| self.by_heads.get(&pair).copied()).collect()
    }

    /// Those heads of a principal that some policy has.
    pub(super) fn principal_heads(&self, mut heads: Vec<Head>) -> Vec<Head> {
        heads.retain(|head| self.principal_heads.contains(head));
        heads
    }

    /// The buckets of these groups for a principal with these heads.
    pub(super) fn slice(&self, groups: &[usize], heads: &[Head]) -> impl Iterator<Item = usize> {
        groups.iter().flat_map(move |group| {
            let of_group = &self.groups[*group];
            heads.iter().filter_map(move |head| of_group.get(head).copied())
        })
    }

    /// The buckets of these groups, for whatever principal.
    pub(super) fn all(&self, groups: &[usize]) -> impl Iterator<Item = usize> {
        groups.iter().flat_map(|group| self.groups[*group].values().copied())
    }

    pub(super) fn bucket(&self, index: usize) -> &Bucket {
        &self.buckets[index]
    }
}
