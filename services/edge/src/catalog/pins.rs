//! Holds what clients see against the catalog lock.

use std::sync::Arc;

use drawbridge_sdk::{ConfigText, ConfigTextError};
use rmcp::model::MetaObject;
use serde::Deserialize;

use super::{
    CatalogLock, PromptItem, ResourceItem, ShownResource, ToolItem,
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
    mode: PinMode,
}

impl Pins {
    /// Reads the lock.
    pub(crate) fn new(lock: &ConfigText, mode: PinMode) -> Result<Self, ConfigTextError> {
        Ok(Self { lock: CatalogLock::parse(lock)?, mode })
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

/// These items, as far as they are to be offered.
pub(super) fn pinned<T: Pinned>(
    pins: Option<&Pins>,
    items: Vec<Arc<T>>,
    departures: &mut Vec<Departure>,
) -> Vec<Arc<T>> {
    let Some(pins) = pins else { return items };
    let offered = items.into_iter().filter_map(|item| {
        let (key, now) = item.locked();
        let before = pins.lock.get(&key);
        let change = match before {
            Some(before) if before.is(&now) => return Some(item),
            Some(_) => "changed",
            None => "new",
        };
        let mut diff = diff(before, Some(&now));
        if diff.len() > DIFF_BYTES_MAX {
            diff.truncate(diff.floor_char_boundary(DIFF_BYTES_MAX));
            diff.push_str("\n…");
        }
        let withheld = pins.mode == PinMode::Enforce;
        departures.push(Departure { key, change, diff, withheld });
        (!withheld).then(|| Arc::new(item.flagged(change)))
    });
    offered.collect()
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
        match &mut flagged.shown {
            ShownResource::Fixed(resource) => flag(&mut resource.meta, word),
            ShownResource::Template(template) => flag(&mut template.meta, word),
        }
        flagged
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
