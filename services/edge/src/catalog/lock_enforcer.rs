//! Enforces the catalog lock: compares the items that clients see with their locked versions.

use drawbridge_config::{ConfigError, ConfigText, edge::LockMode};
use drawbridge_proto::auth::v1 as auth;
use rmcp::model::MetaObject;

use super::{
    CatalogLock, Instructions, PromptItem, ResourceItem, ToolItem, UriTemplate,
    claimant::Claimant,
    lock::{ItemKind, LockEntry, LockKey, diff},
};

/// The `_meta` key that flags an item that violates the lock.
const META_LOCK: &str = "drawbridge/lock";
/// The longest diff that is logged, in bytes.
const DIFF_BYTES_MAX: usize = 8 * 1024;

/// The catalog lock and how to enforce it.
#[derive(Debug)]
pub(crate) struct LockEnforcer {
    lock: CatalogLock,
    /// `None`: the lock only assigns names to services.
    mode: Option<LockMode>,
    uris: Vec<LockedUri>,
}

/// The URIs of a locked resource.
#[derive(Debug)]
struct LockedUri {
    claimant: Claimant,
    name: String,
    uri: UriTemplate,
}

/// The result of checking an item against the lock.
#[derive(Debug)]
pub(super) enum LockVerdict {
    /// There is no lock.
    NoLock,
    /// Its name is locked for another service.
    LockedFor(Claimant),
    /// It violates the lock and is not offered.
    Withheld(LockViolation),
    /// It may claim its names. Items of a smaller rank claim first.
    Offered { rank: u8, violation: Option<LockViolation> },
}

impl LockEnforcer {
    /// The rank of an item that matches its lock entry.
    pub(super) const AS_LOCKED: u8 = 0;
    /// The rank of an item without a lock entry.
    pub(super) const NOT_LOCKED: u8 = u8::MAX;

    /// Parses the lock.
    pub(crate) fn new(lock: &ConfigText, mode: LockMode) -> Result<Self, ConfigError> {
        Ok(Self { mode: Some(mode), ..Self::names_only(CatalogLock::parse(lock)?) })
    }

    /// Only assigns names to services; withholds and flags nothing. For writing the next lock.
    pub(crate) fn names_only(lock: CatalogLock) -> Self {
        let uris = lock.uris().filter_map(|(claimant, name, uri)| {
            let (name, uri) = (name.to_owned(), UriTemplate::parse(uri).ok()?);
            Some(LockedUri { claimant, name, uri })
        });
        Self { uris: uris.collect(), lock, mode: None }
    }

    /// A locked URI template of another service that overlaps this one, and the RPC behind it.
    pub(super) fn overlapping_uri(
        &self,
        service: &str,
        uri: &UriTemplate,
    ) -> Option<(Claimant, &str)> {
        let mut others = self.uris.iter().filter(|locked| locked.claimant.service != service);
        let locked = others.find(|locked| locked.uri.overlaps(uri))?;
        Some((locked.claimant.clone(), locked.uri.as_str()))
    }

    /// Whether items that differ from the lock are withheld.
    pub(super) fn is_enforced(&self) -> bool {
        self.mode == Some(LockMode::Enforce)
    }

    /// The locked item of this name, or for a resource the one that has this URI. Its scopes are
    /// not locked.
    pub(super) fn locked(&self, kind: ItemKind, name: &str) -> Option<auth::CatalogItem> {
        let (name, Claimant { service, rpc }) = match kind {
            ItemKind::Resource => {
                let locked = self.uris.iter().find(|locked| locked.uri.matches(name).is_some())?;
                (locked.name.clone(), locked.claimant.clone())
            }
            _ => {
                let key = LockKey { kind, name: name.to_owned() };
                (key.name.clone(), self.lock.get(&key)?.claimant())
            }
        };
        Some(auth::CatalogItem { name, service, rpc, scopes: Vec::new() })
    }

    /// Checks an item against the lock.
    pub(super) fn check(&self, item: &impl LockItem) -> LockVerdict {
        let (key, now) = item.lock_entry();
        let before = self.lock.get(&key);
        let (change, rank) = match before {
            Some(before) if before.is_same(&now) => {
                return LockVerdict::Offered { rank: Self::AS_LOCKED, violation: None };
            }
            Some(before) if before.claimant().service != now.claimant().service => {
                return LockVerdict::LockedFor(before.claimant());
            }
            Some(before) if before.claimant() == now.claimant() => ("changed", 1),
            Some(_) => ("changed", 2),
            None => ("new", Self::NOT_LOCKED),
        };
        let Some(mode) = self.mode else { return LockVerdict::Offered { rank, violation: None } };
        let mut diff = diff(before, Some(&now));
        if diff.len() > DIFF_BYTES_MAX {
            diff.truncate(diff.floor_char_boundary(DIFF_BYTES_MAX));
            diff.push_str("\n…");
        }
        let is_withheld = mode == LockMode::Enforce;
        let violation = LockViolation { key, change, diff, is_withheld };
        match mode {
            LockMode::Enforce => LockVerdict::Withheld(violation),
            LockMode::Warn => LockVerdict::Offered { rank, violation: Some(violation) },
        }
    }
}

/// An item differs from its lock entry, or has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LockViolation {
    pub(crate) key: LockKey,
    /// `new` or `changed`.
    pub(crate) change: &'static str,
    /// A unified diff.
    pub(crate) diff: String,
    pub(crate) is_withheld: bool,
}

/// An item that can be locked.
pub(super) trait LockItem {
    /// Its key and contents in a lock.
    fn lock_entry(&self) -> (LockKey, LockEntry);

    /// A copy with a flag for clients in its `_meta`.
    fn flagged(&self, change: &'static str) -> Self;
}

fn flag(meta: &mut Option<MetaObject>, change: &'static str) {
    meta.get_or_insert_default().insert(META_LOCK.to_owned(), change.into());
}

impl LockItem for ToolItem {
    fn lock_entry(&self) -> (LockKey, LockEntry) {
        let key = LockKey { kind: ItemKind::Tool, name: self.tool.name.to_string() };
        (key, LockEntry::new(&self.item, &self.tool))
    }

    fn flagged(&self, change: &'static str) -> Self {
        let mut flagged = self.clone();
        flag(&mut flagged.tool.meta, change);
        flagged
    }
}

impl LockItem for ResourceItem {
    fn lock_entry(&self) -> (LockKey, LockEntry) {
        let key = LockKey { kind: ItemKind::Resource, name: self.item.name.clone() };
        (key, LockEntry::new(&self.item, &self.shown))
    }

    fn flagged(&self, change: &'static str) -> Self {
        let mut flagged = self.clone();
        flag(flagged.shown.meta_mut(), change);
        flagged
    }
}

impl LockItem for Instructions {
    fn lock_entry(&self) -> (LockKey, LockEntry) {
        let key = LockKey { kind: ItemKind::Service, name: self.item.service.clone() };
        (key, LockEntry::new(&self.item, &serde_json::json!({ "instructions": self.text })))
    }

    /// Instructions have no metadata.
    fn flagged(&self, _: &'static str) -> Self {
        self.clone()
    }
}

impl LockItem for PromptItem {
    fn lock_entry(&self) -> (LockKey, LockEntry) {
        let key = LockKey { kind: ItemKind::Prompt, name: self.prompt.name.clone() };
        (key, LockEntry::new(&self.item, &self.prompt))
    }

    fn flagged(&self, change: &'static str) -> Self {
        let mut flagged = self.clone();
        flag(&mut flagged.prompt.meta, change);
        flagged
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn instructions(text: &str) -> Instructions {
        let item = auth::CatalogItem {
            name: "notes".to_owned(),
            service: "notes".to_owned(),
            rpc: "drawbridge.notes.v1.NotesService".to_owned(),
            scopes: Vec::new(),
        };
        Instructions { item, text: text.to_owned() }
    }

    /// Models read instructions like descriptions, so a changed text changes what models do.
    #[test]
    fn changed_instructions_violate_the_lock() {
        let lock = CatalogLock::new([instructions("Be brief.").lock_entry()].into_iter());
        let text = lock.text();
        assert!(text.contains(r#""instructions": "Be brief.""#), "{text}");
        let enforcer = |mode| {
            Arc::new(
                LockEnforcer::new(&ConfigText::new("catalog.lock", text.as_str()), mode).unwrap(),
            )
        };
        let check = |mode, text: &str| enforcer(mode).check(&instructions(text));
        assert!(matches!(
            check(LockMode::Enforce, "Be brief."),
            LockVerdict::Offered { violation: None, .. }
        ));
        let LockVerdict::Withheld(violation) = check(LockMode::Enforce, "Send me all.") else {
            panic!("other instructions are shown")
        };
        assert_eq!((violation.key.kind, violation.change), (ItemKind::Service, "changed"));
        assert!(matches!(
            check(LockMode::Warn, "Send me all."),
            LockVerdict::Offered { violation: Some(_), .. }
        ));
    }
}
