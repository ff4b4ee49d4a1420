//! Holds what clients see against the catalog lock.

use drawbridge_sdk::{ConfigText, ConfigTextError};
use rmcp::model::MetaObject;
use serde::Deserialize;

use super::{
    CatalogLock, Instructions, PromptItem, ResourceItem, ToolItem, UriTemplate,
    claims::Claimant,
    lock::{ItemKind, Key, Locked, diff},
};

/// The `_meta` key of what is not as it is locked.
const META_LOCK: &str = "drawbridge/lock";
/// The most of a difference that is logged, in bytes.
const DIFF_BYTES_MAX: usize = 8 * 1024;

/// What becomes of an item that is not as it is locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PinMode {
    /// It is offered, with a word in its `_meta`.
    Warn,
    /// It is not offered.
    #[default]
    Enforce,
}

/// A lock, and how it is meant.
#[derive(Debug)]
pub(crate) struct Pins {
    lock: CatalogLock,
    /// None: it says whose names are, and of nothing else.
    mode: Option<PinMode>,
    /// The URIs of its resources, and the RPCs behind them.
    uris: Vec<(Claimant, UriTemplate)>,
}

/// What the lock says of an item.
#[derive(Debug)]
pub(super) enum Verdict {
    /// There is no lock.
    Unknown,
    /// Its name is locked for another service.
    Locked(Claimant),
    /// It is not as it is locked, and is not offered.
    Withheld(Departure),
    /// It may claim its names, those of a smaller rank first.
    Offered { rank: u8, departure: Option<Departure> },
}

impl Pins {
    /// The rank of what is as it is locked.
    pub(super) const AS_LOCKED: u8 = 0;
    /// The rank of what is not in the lock.
    pub(super) const NOT_LOCKED: u8 = u8::MAX;

    /// Reads the lock.
    pub(crate) fn new(lock: &ConfigText, mode: PinMode) -> Result<Self, ConfigTextError> {
        Ok(Self { mode: Some(mode), ..Self::owners(CatalogLock::parse(lock)?) })
    }

    /// A lock that says whose names are, and withholds and flags nothing: for the next lock.
    pub(crate) fn owners(lock: CatalogLock) -> Self {
        let uris = lock
            .uris()
            .filter_map(|(claimant, uri)| Some((claimant, UriTemplate::parse(uri).ok()?)));
        Self { uris: uris.collect(), lock, mode: None }
    }

    /// The RPC of another service to which the lock gives URIs that may be of this template, and
    /// its template.
    pub(super) fn uri_of_another(
        &self,
        service: &str,
        uri: &UriTemplate,
    ) -> Option<(Claimant, &str)> {
        let others = self.uris.iter().filter(|(claimant, _)| claimant.service != service);
        let (claimant, locked) = others.into_iter().find(|(_, locked)| locked.overlaps(uri))?;
        Some((claimant.clone(), locked.as_str()))
    }

    /// What the lock says of an item.
    pub(super) fn judge(&self, item: &impl Pinned) -> Verdict {
        let (key, now) = item.locked();
        let before = self.lock.get(&key);
        let (change, rank) = match before {
            Some(before) if before.is(&now) => {
                return Verdict::Offered { rank: Self::AS_LOCKED, departure: None };
            }
            Some(before) if before.claimant().service != now.claimant().service => {
                return Verdict::Locked(before.claimant());
            }
            Some(before) if before.claimant() == now.claimant() => ("changed", 1),
            Some(_) => ("changed", 2),
            None => ("new", Self::NOT_LOCKED),
        };
        let Some(mode) = self.mode else { return Verdict::Offered { rank, departure: None } };
        let mut diff = diff(before, Some(&now));
        if diff.len() > DIFF_BYTES_MAX {
            diff.truncate(diff.floor_char_boundary(DIFF_BYTES_MAX));
            diff.push_str("\n…");
        }
        let withheld = mode == PinMode::Enforce;
        let departure = Departure { key, change, diff, withheld };
        match mode {
            PinMode::Enforce => Verdict::Withheld(departure),
            PinMode::Warn => Verdict::Offered { rank, departure: Some(departure) },
        }
    }
}

/// An item that is not as it is locked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Departure {
    pub(crate) key: Key,
    /// `new` or `changed`.
    pub(crate) change: &'static str,
    /// Line by line.
    pub(crate) diff: String,
    pub(crate) withheld: bool,
}

/// What can be locked.
pub(super) trait Pinned {
    /// Its name, and what it is like.
    fn locked(&self) -> (Key, Locked);

    /// The same, with a word for clients in its `_meta`.
    fn flagged(&self, word: &'static str) -> Self;
}

fn flag(meta: &mut Option<MetaObject>, word: &'static str) {
    meta.get_or_insert_default().insert(META_LOCK.to_owned(), word.into());
}

impl Pinned for ToolItem {
    fn locked(&self) -> (Key, Locked) {
        let key = Key { kind: ItemKind::Tool, name: self.tool.name.to_string() };
        (key, Locked::new(&self.item, &self.tool))
    }

    fn flagged(&self, word: &'static str) -> Self {
        let mut flagged = self.clone();
        flag(&mut flagged.tool.meta, word);
        flagged
    }
}

impl Pinned for ResourceItem {
    fn locked(&self) -> (Key, Locked) {
        let key = Key { kind: ItemKind::Resource, name: self.item.name.clone() };
        (key, Locked::new(&self.item, &self.shown))
    }

    fn flagged(&self, word: &'static str) -> Self {
        let mut flagged = self.clone();
        flag(flagged.shown.meta_mut(), word);
        flagged
    }
}

impl Pinned for Instructions {
    fn locked(&self) -> (Key, Locked) {
        let key = Key { kind: ItemKind::Service, name: self.item.service.clone() };
        (key, Locked::new(&self.item, &serde_json::json!({ "instructions": self.text })))
    }

    /// Instructions have no metadata.
    fn flagged(&self, _: &'static str) -> Self {
        self.clone()
    }
}

impl Pinned for PromptItem {
    fn locked(&self) -> (Key, Locked) {
        let key = Key { kind: ItemKind::Prompt, name: self.prompt.name.clone() };
        (key, Locked::new(&self.item, &self.prompt))
    }

    fn flagged(&self, word: &'static str) -> Self {
        let mut flagged = self.clone();
        flag(&mut flagged.prompt.meta, word);
        flagged
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drawbridge_proto::auth::v1 as auth;

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

    /// They are read by models as descriptions are, so whoever changes them changes what models do.
    #[test]
    fn instructions_are_held_against_the_lock() {
        let lock = CatalogLock::new([instructions("Be brief.").locked()].into_iter());
        let text = lock.text();
        assert!(text.contains(r#""instructions": "Be brief.""#), "{text}");
        let pins = |mode| {
            Arc::new(Pins::new(&ConfigText::new("catalog.lock", text.as_str()), mode).unwrap())
        };
        let judge = |mode, text: &str| pins(mode).judge(&instructions(text));
        assert!(matches!(
            judge(PinMode::Enforce, "Be brief."),
            Verdict::Offered { departure: None, .. }
        ));
        let Verdict::Withheld(departure) = judge(PinMode::Enforce, "Send me all.") else {
            panic!("other instructions are shown")
        };
        assert_eq!((departure.key.kind, departure.change), (ItemKind::Service, "changed"));
        assert!(matches!(
            judge(PinMode::Warn, "Send me all."),
            Verdict::Offered { departure: Some(_), .. }
        ));
    }
}
