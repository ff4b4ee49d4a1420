//! Decides which service may claim a name.
//!
//! By precedence: the catalog lock; the config file, where it renames a tool; the namespace that
//! the name begins with; the service that had the name before. Between equals the order of
//! namespaces decides, so that replicas that start together agree.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use drawbridge_config::Namespace;
use drawbridge_proto::auth::v1 as auth;

use super::{
    LockEnforcer, PromptItem, ResourceItem, ToolItem, UriTemplate,
    claimant::Claimant,
    lock_enforcer::{LockItem, LockVerdict, LockViolation},
};

mod names;
#[cfg(test)]
mod tests;

pub(crate) use self::names::NameKind;
use self::names::has_prefix;
pub(super) use self::names::{owner_of_name, owner_of_uri};

/// Why a name belongs to another service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NameOwner {
    /// The catalog lock assigns it to this RPC.
    Locked(Claimant),
    /// It begins with the namespace of this service.
    Namespace(String),
    /// This RPC claimed it first.
    Claimed(Claimant),
}

/// Two services claim a name or a URI. The second one's item is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NameConflict {
    pub(crate) kind: NameKind,
    /// The name of the item that is left out.
    pub(crate) name: String,
    /// The owner's name, where it differs: URI templates may overlap.
    pub(crate) owned: Option<String>,
    pub(crate) owner: NameOwner,
    pub(crate) left_out: Claimant,
}

impl std::fmt::Display for NameConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, name, owned, owner, left_out } = self;
        let Claimant { service, rpc } = left_out;
        write!(f, "the {} {name:?} of {rpc} ({service}) ", kind.as_str())?;
        match (owner, owned) {
            (NameOwner::Locked(_), None) => f.write_str("is locked for ")?,
            (NameOwner::Locked(_), Some(owned)) => {
                write!(f, "overlaps {owned:?}, which is locked for ")?;
            }
            (NameOwner::Namespace(namespace), _) => {
                return write!(
                    f,
                    "belongs to the service {namespace:?}, whose namespace it begins with"
                );
            }
            (NameOwner::Claimed(_), None) => f.write_str("belongs to ")?,
            (NameOwner::Claimed(_), Some(owned)) => write!(f, "overlaps {owned:?} of ")?,
        }
        let (NameOwner::Locked(owner) | NameOwner::Claimed(owner)) = owner else { return Ok(()) };
        write!(f, "{} ({})", owner.rpc, owner.service)
    }
}

/// A name that an item claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClaimedName<'a> {
    pub(super) kind: NameKind,
    pub(super) text: &'a str,
    /// Whether the config file gives it, not the service.
    pub(super) is_configured: bool,
}

impl<'a> ClaimedName<'a> {
    pub(super) fn of(kind: NameKind, text: &'a str) -> Self {
        Self { kind, text, is_configured: false }
    }
}

/// An item that claims names.
pub(super) trait ClaimsNames: LockItem {
    fn item(&self) -> &auth::CatalogItem;

    fn names(&self) -> Vec<ClaimedName<'_>>;

    /// The template of its URIs.
    fn uri(&self) -> Option<&UriTemplate> {
        None
    }
}

/// The names that services have, each with its service.
pub(super) type HeldNames = HashSet<(NameKind, String, String)>;

/// The names of these items.
pub(super) fn held_names<'a, T: ClaimsNames + 'a>(
    items: impl Iterator<Item = &'a Arc<T>>,
) -> HeldNames {
    let of = |item: &'a Arc<T>| {
        let service = &item.item().service;
        item.names().into_iter().map(|name| (name.kind, name.text.to_owned(), service.clone()))
    };
    items.flat_map(of).collect()
}

impl ClaimsNames for ToolItem {
    fn item(&self) -> &auth::CatalogItem {
        &self.item
    }

    /// Both names: clients use the shown one, policies the one that the service gives.
    fn names(&self) -> Vec<ClaimedName<'_>> {
        let shown = ClaimedName::of(NameKind::Tool, &self.tool.name);
        let is_configured = self.tool.name != self.item.name;
        vec![
            ClaimedName { is_configured, ..shown },
            ClaimedName::of(NameKind::ToolOwn, &self.item.name),
        ]
    }
}

impl ClaimsNames for ResourceItem {
    fn item(&self) -> &auth::CatalogItem {
        &self.item
    }

    fn names(&self) -> Vec<ClaimedName<'_>> {
        let uri = ClaimedName::of(NameKind::Uri, self.uri.as_str());
        vec![ClaimedName::of(NameKind::Resource, &self.item.name), uri]
    }

    fn uri(&self) -> Option<&UriTemplate> {
        Some(&self.uri)
    }
}

impl ClaimsNames for PromptItem {
    fn item(&self) -> &auth::CatalogItem {
        &self.item
    }

    fn names(&self) -> Vec<ClaimedName<'_>> {
        vec![ClaimedName::of(NameKind::Prompt, &self.item.name)]
    }
}

/// Decides which items may claim their names.
#[derive(Debug)]
pub(super) struct NameResolver<'a> {
    pub(super) lock: Option<&'a LockEnforcer>,
    /// Of all configured services, whether their contracts have been read or not.
    pub(super) namespaces: &'a BTreeSet<Namespace>,
    /// The names that services had before. Empty until every initial service was read once.
    pub(super) held: &'a HeldNames,
}

/// The order of claims: the smallest rank claims first.
type ClaimRank = (u8, bool, bool, bool, usize);

/// An item that may claim its names, if no earlier candidate has.
struct Candidate<T> {
    rank: ClaimRank,
    item: Arc<T>,
    violation: Option<LockViolation>,
}

impl NameResolver<'_> {
    /// The items that are offered, in their order. Others are left out with a conflict or a lock
    /// violation. `items` come in the order of namespaces.
    pub(super) fn resolve<T: ClaimsNames>(
        &self,
        items: impl Iterator<Item = Arc<T>>,
        conflicts: &mut Vec<NameConflict>,
        lock_violations: &mut Vec<LockViolation>,
    ) -> Vec<Arc<T>> {
        let mut candidates = Vec::new();
        for (index, item) in items.enumerate() {
            let (lock_rank, violation) =
                match self.lock.map_or(LockVerdict::NoLock, |lock| lock.check(&*item)) {
                    LockVerdict::LockedFor(claimant) => {
                        conflicts.push(self.lock_conflict(&*item, claimant));
                        continue;
                    }
                    LockVerdict::Withheld(violation) => {
                        lock_violations.push(violation);
                        continue;
                    }
                    LockVerdict::Offered { rank, violation } => (rank, violation),
                    LockVerdict::NoLock => (LockEnforcer::NOT_LOCKED, None),
                };
            // For a locked item the lock alone decides.
            let conflict = match lock_rank {
                LockEnforcer::AS_LOCKED => None,
                LockEnforcer::NOT_LOCKED => {
                    self.namespace_conflict(&*item).or_else(|| self.locked_uri_conflict(&*item))
                }
                _ => self.locked_uri_conflict(&*item),
            };
            if let Some(conflict) = conflict {
                conflicts.push(conflict);
                continue;
            }
            let rank = self.rank(&*item, lock_rank, index);
            candidates.push(Candidate { rank, item, violation });
        }
        candidates.sort_by_key(|candidate| candidate.rank);
        let mut claimed = claim(candidates, conflicts);
        claimed.sort_by_key(|candidate| candidate.rank.4);
        let offered =
            claimed.into_iter().map(|Candidate { item, violation, .. }| match violation {
                None => item,
                Some(violation) => {
                    let flagged = Arc::new(item.flagged(violation.change));
                    lock_violations.push(violation);
                    flagged
                }
            });
        offered.collect()
    }

    /// Whether the lock admits an item that claims no name besides its service's.
    pub(super) fn admits(
        &self,
        item: &impl LockItem,
        lock_violations: &mut Vec<LockViolation>,
    ) -> bool {
        match self.lock.map_or(LockVerdict::NoLock, |lock| lock.check(item)) {
            LockVerdict::LockedFor(_) => false,
            LockVerdict::Withheld(violation) => {
                lock_violations.push(violation);
                false
            }
            LockVerdict::Offered { violation, .. } => {
                lock_violations.extend(violation);
                true
            }
            LockVerdict::NoLock => true,
        }
    }

    fn rank<T: ClaimsNames>(&self, item: &T, lock_rank: u8, index: usize) -> ClaimRank {
        let (service, names) = (&item.item().service, item.names());
        let is_configured = names.iter().any(|name| name.is_configured);
        // A service whose longer namespace the name begins with claims first, once it is there.
        let is_shadowed = names.iter().any(|name| {
            let owner = self.owner(name);
            owner.is_some_and(|owner| owner != service)
        });
        let is_held = names
            .iter()
            .all(|name| self.held.contains(&(name.kind, name.text.to_owned(), service.clone())));
        (lock_rank, !is_configured, is_shadowed, !is_held, index)
    }

    fn owner(&self, name: &ClaimedName<'_>) -> Option<&str> {
        match name.kind {
            _ if name.is_configured => None,
            NameKind::Uri => owner_of_uri(self.namespaces, name.text),
            _ => owner_of_name(self.namespaces, name.text),
        }
    }

    /// The conflict about a name that begins with another service's namespace and not its own.
    fn namespace_conflict<T: ClaimsNames>(&self, item: &T) -> Option<NameConflict> {
        let service = &item.item().service;
        item.names().into_iter().find_map(|name| {
            let owner = self.owner(&name).filter(|owner| owner != service)?;
            if name.kind != NameKind::Uri && has_prefix(name.text, service) {
                return None;
            }
            Some(conflict(item, &name, None, NameOwner::Namespace(owner.to_owned())))
        })
    }

    fn lock_conflict<T: ClaimsNames>(&self, item: &T, claimant: Claimant) -> NameConflict {
        let names = item.names();
        // The lock names an item by the name that clients see, which is the first.
        conflict(item, &names[0], None, NameOwner::Locked(claimant))
    }

    /// The conflict about URIs that the lock assigns to another service, whether or not its
    /// contract has been read.
    fn locked_uri_conflict<T: ClaimsNames>(&self, item: &T) -> Option<NameConflict> {
        let (lock, uri) = (self.lock?, item.uri()?);
        let (claimant, locked) = lock.overlapping_uri(&item.item().service, uri)?;
        let name = ClaimedName::of(NameKind::Uri, uri.as_str());
        Some(conflict(item, &name, Some(locked), NameOwner::Locked(claimant)))
    }
}

fn conflict<T: ClaimsNames>(
    item: &T,
    name: &ClaimedName<'_>,
    owned: Option<&str>,
    owner: NameOwner,
) -> NameConflict {
    let owned = owned.filter(|owned| *owned != name.text).map(ToOwned::to_owned);
    let (kind, name) = (name.kind, name.text.to_owned());
    NameConflict { kind, name, owned, owner, left_out: item.item().into() }
}

/// The candidates whose names are all free when they claim, in the given order.
fn claim<T: ClaimsNames>(
    candidates: Vec<Candidate<T>>,
    conflicts: &mut Vec<NameConflict>,
) -> Vec<Candidate<T>> {
    let mut taken: HashMap<(NameKind, String), Claimant> = HashMap::new();
    let mut claimed: Vec<Candidate<T>> = Vec::new();
    for candidate in candidates {
        let item = &*candidate.item;
        let names = item.names();
        let same_name = names.iter().find_map(|name| {
            let owner = taken.get(&(name.kind, name.text.to_owned()))?;
            Some(conflict(item, name, None, NameOwner::Claimed(owner.clone())))
        });
        if let Some(conflict) = same_name.or_else(|| overlap(item, &claimed)) {
            conflicts.push(conflict);
            continue;
        }
        let claimant = Claimant::from(item.item());
        taken.extend(
            names.into_iter().map(|name| ((name.kind, name.text.to_owned()), claimant.clone())),
        );
        claimed.push(candidate);
    }
    claimed
}

/// The conflict with the first item of another service whose URIs overlap. Within one service
/// overlaps are allowed: the order of its contract decides.
fn overlap<T: ClaimsNames>(item: &T, claimed: &[Candidate<T>]) -> Option<NameConflict> {
    let uri = item.uri()?;
    let others = claimed.iter().filter(|other| other.item.item().service != item.item().service);
    let (other, owned) = others
        .filter_map(|other| Some((&other.item, other.item.uri()?)))
        .find(|(_, owned)| owned.overlaps(uri))?;
    let name = ClaimedName::of(NameKind::Uri, uri.as_str());
    Some(conflict(item, &name, Some(owned.as_str()), NameOwner::Claimed(other.item().into())))
}
