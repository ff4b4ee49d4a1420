//! Who may claim a name, decided before anybody claims it.
//!
//! In this order: what the catalog lock says of the name; what the config file says (a tool that it
//! renames); the namespace that the name begins with; who had the name before. Between equals the
//! order of namespaces decides, so that replicas that start together agree.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use drawbridge_proto::auth::v1 as auth;

use super::{
    Namespace, Pins, PromptItem, ResourceItem, ToolItem, UriTemplate,
    pins::{Departure, Pinned, Verdict},
};

mod names;
#[cfg(test)]
mod tests;

pub(crate) use self::names::NameKind;
use self::names::{has_prefix, owner_of_name, owner_of_uri};

/// An RPC of a tool service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claimant {
    pub(crate) service: String,
    pub(crate) rpc: String,
}

impl From<&auth::CatalogItem> for Claimant {
    fn from(item: &auth::CatalogItem) -> Self {
        Self { service: item.service.clone(), rpc: item.rpc.clone() }
    }
}

/// Why a name is another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// The catalog lock gives it to this RPC.
    Locked(Claimant),
    /// It begins with the namespace of this service.
    Namespace(String),
    /// This RPC has it.
    Claimed(Claimant),
}

/// A name, or a URI, that two services claim. The second is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Conflict {
    pub(crate) kind: NameKind,
    /// As the item that is left out has it.
    pub(crate) name: String,
    /// As its owner has it, where that is another text: URI templates may overlap.
    pub(crate) owned: Option<String>,
    pub(crate) owner: Owner,
    pub(crate) left_out: Claimant,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, name, owned, owner, left_out } = self;
        let Claimant { service, rpc } = left_out;
        write!(f, "the {} {name:?} of {rpc} ({service}) ", kind.as_str())?;
        match (owner, owned) {
            (Owner::Locked(_), None) => f.write_str("is locked for ")?,
            (Owner::Locked(_), Some(owned)) => {
                write!(f, "overlaps {owned:?}, which is locked for ")?
            }
            (Owner::Namespace(namespace), _) => {
                return write!(
                    f,
                    "belongs to the service {namespace:?}, whose namespace it begins with"
                );
            }
            (Owner::Claimed(_), None) => f.write_str("belongs to ")?,
            (Owner::Claimed(_), Some(owned)) => write!(f, "overlaps {owned:?} of ")?,
        }
        let (Owner::Locked(owner) | Owner::Claimed(owner)) = owner else { return Ok(()) };
        write!(f, "{} ({})", owner.rpc, owner.service)
    }
}

/// A name that an item claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub(super) kind: NameKind,
    pub(super) text: &'a str,
    /// Whether the config file gives it, and not the service.
    pub(super) configured: bool,
}

impl<'a> Name<'a> {
    pub(super) fn of(kind: NameKind, text: &'a str) -> Self {
        Self { kind, text, configured: false }
    }
}

/// What claims names.
pub(super) trait Claims: Pinned {
    fn item(&self) -> &auth::CatalogItem;

    fn names(&self) -> Vec<Name<'_>>;

    /// What its URIs look like.
    fn uri(&self) -> Option<&UriTemplate> {
        None
    }
}

/// Names that services have, each with its service.
pub(super) type Held = HashSet<(NameKind, String, String)>;

/// The names that these items have.
pub(super) fn held<'a, T: Claims + 'a>(items: impl Iterator<Item = &'a Arc<T>>) -> Held {
    let of = |item: &'a Arc<T>| {
        let service = &item.item().service;
        item.names().into_iter().map(|name| (name.kind, name.text.to_owned(), service.clone()))
    };
    items.flat_map(of).collect()
}

impl Claims for ToolItem {
    fn item(&self) -> &auth::CatalogItem {
        &self.item
    }

    /// A policy names a tool as its service does.
    fn names(&self) -> Vec<Name<'_>> {
        let seen = Name::of(NameKind::Tool, &self.tool.name);
        let configured = self.tool.name != self.item.name;
        vec![Name { configured, ..seen }, Name::of(NameKind::ToolOwn, &self.item.name)]
    }
}

impl Claims for ResourceItem {
    fn item(&self) -> &auth::CatalogItem {
        &self.item
    }

    fn names(&self) -> Vec<Name<'_>> {
        let uri = Name::of(NameKind::Uri, self.uri.as_str());
        vec![Name::of(NameKind::Resource, &self.item.name), uri]
    }

    fn uri(&self) -> Option<&UriTemplate> {
        Some(&self.uri)
    }
}

impl Claims for PromptItem {
    fn item(&self) -> &auth::CatalogItem {
        &self.item
    }

    fn names(&self) -> Vec<Name<'_>> {
        vec![Name::of(NameKind::Prompt, &self.item.name)]
    }
}

/// What decides who may claim a name.
#[derive(Debug)]
pub(super) struct Owners<'a> {
    pub(super) pins: Option<&'a Pins>,
    /// Of all services that there are to be, whether they have been read or not.
    pub(super) namespaces: &'a BTreeSet<Namespace>,
    /// Who had which name before. Empty until the first services have all been asked.
    pub(super) held: &'a Held,
}

/// Who claims before whom: the smaller first.
type Rank = (u8, bool, bool, bool, usize);

/// An item that may claim its names.
struct Candidate<T> {
    rank: Rank,
    item: Arc<T>,
    departure: Option<Departure>,
}

impl Owners<'_> {
    /// The items that are offered, in their order, as far as their names are theirs. `items` come
    /// in the order of namespaces.
    pub(super) fn settle<T: Claims>(
        &self,
        items: impl Iterator<Item = Arc<T>>,
        conflicts: &mut Vec<Conflict>,
        departures: &mut Vec<Departure>,
    ) -> Vec<Arc<T>> {
        let mut candidates = Vec::new();
        for (index, item) in items.enumerate() {
            let (lock_rank, departure) =
                match self.pins.map_or(Verdict::Unknown, |pins| pins.judge(&*item)) {
                    Verdict::Locked(claimant) => {
                        conflicts.push(self.locked_for(&*item, claimant));
                        continue;
                    }
                    Verdict::Withheld(departure) => {
                        departures.push(departure);
                        continue;
                    }
                    Verdict::Offered { rank, departure } => (rank, departure),
                    Verdict::Unknown => (Pins::NOT_LOCKED, None),
                };
            // What the lock has is decided by the lock alone.
            let conflict = match lock_rank {
                Pins::AS_LOCKED => None,
                Pins::NOT_LOCKED => self.foreign(&*item).or_else(|| self.overlaps_locked(&*item)),
                _ => self.overlaps_locked(&*item),
            };
            if let Some(conflict) = conflict {
                conflicts.push(conflict);
                continue;
            }
            let rank = self.rank(&*item, lock_rank, index);
            candidates.push(Candidate { rank, item, departure });
        }
        candidates.sort_by_key(|candidate| candidate.rank);
        let mut claimed = claim(candidates, conflicts);
        claimed.sort_by_key(|candidate| candidate.rank.4);
        let offered =
            claimed.into_iter().map(|Candidate { item, departure, .. }| match departure {
                None => item,
                Some(departure) => {
                    let flagged = Arc::new(item.flagged(departure.change));
                    departures.push(departure);
                    flagged
                }
            });
        offered.collect()
    }

    /// Whether the lock lets clients see an item that claims no name but its service's own.
    pub(super) fn admits(&self, item: &impl Pinned, departures: &mut Vec<Departure>) -> bool {
        match self.pins.map_or(Verdict::Unknown, |pins| pins.judge(item)) {
            Verdict::Locked(_) => false,
            Verdict::Withheld(departure) => {
                departures.push(departure);
                false
            }
            Verdict::Offered { departure, .. } => {
                departures.extend(departure);
                true
            }
            Verdict::Unknown => true,
        }
    }

    fn rank<T: Claims>(&self, item: &T, lock_rank: u8, index: usize) -> Rank {
        let (service, names) = (&item.item().service, item.names());
        let configured = names.iter().any(|name| name.configured);
        // A longer namespace that the name begins with comes first: it is not yet there, or else
        // has another tool.
        let shadowed = names.iter().any(|name| {
            let owner = self.owner(name);
            owner.is_some_and(|owner| owner != service)
        });
        let before = names
            .iter()
            .all(|name| self.held.contains(&(name.kind, name.text.to_owned(), service.clone())));
        (lock_rank, !configured, shadowed, !before, index)
    }

    fn owner(&self, name: &Name<'_>) -> Option<&str> {
        match name.kind {
            _ if name.configured => None,
            NameKind::Uri => owner_of_uri(self.namespaces, name.text),
            _ => owner_of_name(self.namespaces, name.text),
        }
    }

    /// The conflict about a name that begins with another's namespace, and not with the own one.
    fn foreign<T: Claims>(&self, item: &T) -> Option<Conflict> {
        let service = &item.item().service;
        item.names().into_iter().find_map(|name| {
            let owner = self.owner(&name).filter(|owner| owner != service)?;
            if name.kind != NameKind::Uri && has_prefix(name.text, service) {
                return None;
            }
            Some(conflict(item, &name, None, Owner::Namespace(owner.to_owned())))
        })
    }

    fn locked_for<T: Claims>(&self, item: &T, claimant: Claimant) -> Conflict {
        let names = item.names();
        // The first is the one that clients see, by which it is locked.
        conflict(item, &names[0], None, Owner::Locked(claimant))
    }

    /// The conflict about URIs that the lock gives to another service, whether that has been read
    /// or not.
    fn overlaps_locked<T: Claims>(&self, item: &T) -> Option<Conflict> {
        let (pins, uri) = (self.pins?, item.uri()?);
        let (claimant, locked) = pins.uri_of_another(&item.item().service, uri)?;
        let name = Name::of(NameKind::Uri, uri.as_str());
        Some(conflict(item, &name, Some(locked), Owner::Locked(claimant)))
    }
}

fn conflict<T: Claims>(item: &T, name: &Name<'_>, owned: Option<&str>, owner: Owner) -> Conflict {
    let owned = owned.filter(|owned| *owned != name.text).map(ToOwned::to_owned);
    let (kind, name) = (name.kind, name.text.to_owned());
    Conflict { kind, name, owned, owner, left_out: item.item().into() }
}

/// The candidates, in the order in which they come, without those of which a name is taken.
fn claim<T: Claims>(
    candidates: Vec<Candidate<T>>,
    conflicts: &mut Vec<Conflict>,
) -> Vec<Candidate<T>> {
    let mut taken: HashMap<(NameKind, String), Claimant> = HashMap::new();
    let mut claimed: Vec<Candidate<T>> = Vec::new();
    for candidate in candidates {
        let item = &*candidate.item;
        let names = item.names();
        let same = names.iter().find_map(|name| {
            let owner = taken.get(&(name.kind, name.text.to_owned()))?;
            Some(conflict(item, name, None, Owner::Claimed(owner.clone())))
        });
        if let Some(conflict) = same.or_else(|| overlap(item, &claimed)) {
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

/// The conflict with the first item of another service whose URIs may be this one's too. Within a
/// service the order of the contract decides, as it always did: it is one party.
fn overlap<T: Claims>(item: &T, claimed: &[Candidate<T>]) -> Option<Conflict> {
    let uri = item.uri()?;
    let others = claimed.iter().filter(|other| other.item.item().service != item.item().service);
    let (other, owned) = others
        .filter_map(|other| Some((&other.item, other.item.uri()?)))
        .find(|(_, owned)| owned.overlaps(uri))?;
    let name = Name::of(NameKind::Uri, uri.as_str());
    Some(conflict(item, &name, Some(owned.as_str()), Owner::Claimed(other.item().into())))
}
