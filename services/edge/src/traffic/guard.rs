//! Guardrails on content: the guards of the config file filter everything that goes to a model, in
//! the order of the file.
//!
//! A guard has a [`GuardKind`], which replaces texts or caps the size of a result. [`content`]
//! finds the texts of a result.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rmcp::model::{CallToolResult, GetPromptResult, ReadResourceResult};
use serde_json::Value;
use tracing::field::Empty;

use self::{content::GuardPass, json::guard_value, redact::Redactor, size::SizeCap};
use crate::metrics::GUARDED;

mod config;
mod content;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod json;
mod redact;
mod size;
mod strip;

/// The guards in effect.
#[derive(Debug, Default)]
pub(crate) struct Guards(ArcSwap<GuardRules>);

/// The guards of one config file.
#[derive(Debug, Default)]
pub(crate) struct GuardRules {
    guards: Vec<Guard>,
}

#[derive(Debug)]
struct Guard {
    kind: GuardKind,
    scope: GuardScope,
}

/// The kinds of guards.
#[derive(Debug)]
enum GuardKind {
    /// Removes invisible characters.
    Strip,
    /// Replaces secrets and personal data.
    Redact(Redactor),
    /// Truncates results that are too large.
    Size(SizeCap),
}

/// The items to which a guard applies: names of tools, resources and prompts.
#[derive(Debug)]
struct GuardScope {
    only: Option<BTreeSet<String>>,
    except: BTreeSet<String>,
}

/// What the guards did to one result: counts by guard or pattern.
#[derive(Debug, Default)]
struct GuardCounts(BTreeMap<String, u64>);

/// What the guards did in one call: counts by guard or pattern.
#[derive(Debug, Default)]
pub(crate) struct GuardChanges(Mutex<BTreeMap<String, u64>>);

/// An item whose texts are filtered for one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuardedItem<'a> {
    pub(crate) name: &'a str,
    pub(crate) changes: &'a GuardChanges,
}

impl GuardChanges {
    /// The counts so far. They begin again at zero.
    pub(crate) fn take(&self) -> BTreeMap<String, u64> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, name: &str, count: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(name.to_owned()).or_default() += count;
    }
}

impl Guards {
    /// Applies these guards.
    pub(crate) fn set(&self, rules: GuardRules) {
        self.0.store(Arc::new(rules));
    }

    /// Whether any guard applies to this item.
    pub(crate) fn has_guard(&self, item: &str) -> bool {
        self.0.load().for_item(item).next().is_some()
    }

    /// Filters a tool's result.
    pub(crate) fn tool_result(
        &self,
        tool: GuardedItem<'_>,
        mut result: CallToolResult,
    ) -> CallToolResult {
        self.apply(tool, |pass| pass.tool_result(&mut result));
        result
    }

    /// Filters the contents of a resource.
    pub(crate) fn resource(
        &self,
        resource: GuardedItem<'_>,
        mut result: ReadResourceResult,
    ) -> ReadResourceResult {
        self.apply(resource, |pass| pass.resource(&mut result));
        result
    }

    /// Filters a prompt.
    pub(crate) fn prompt(
        &self,
        prompt: GuardedItem<'_>,
        mut result: GetPromptResult,
    ) -> GetPromptResult {
        self.apply(prompt, |pass| pass.prompt(&mut result));
        result
    }

    /// Filters texts of an item.
    pub(crate) fn texts<'t>(
        &self,
        item: GuardedItem<'_>,
        texts: impl IntoIterator<Item = &'t mut String>,
    ) {
        let mut texts: Vec<_> = texts.into_iter().collect();
        self.apply(item, |pass| pass.texts(texts.iter_mut().map(|text| &mut **text)));
    }

    /// Filters a JSON value of an item.
    pub(crate) fn value(&self, item: GuardedItem<'_>, value: &mut Value) {
        self.apply(item, |pass| guard_value(value, pass));
    }

    fn apply(&self, item: GuardedItem<'_>, mut filter: impl FnMut(&mut GuardPass<'_>)) {
        let rules = self.0.load();
        if rules.for_item(item.name).next().is_none() {
            return;
        }
        let span = tracing::info_span!("guard", drawbridge.guard.changes = Empty).entered();
        let mut counts = GuardCounts::default();
        for guard in rules.for_item(item.name) {
            filter(&mut GuardPass { kind: &guard.kind, counts: &mut counts, is_changed: false });
        }
        span.record("drawbridge.guard.changes", counts.0.values().sum::<u64>());
        for (name, count) in counts.0 {
            item.changes.add(&name, count);
            GUARDED.with([name.into(), item.name.to_owned().into()]).increment(count);
        }
    }
}

impl GuardRules {
    /// The guards for this item, in their order.
    fn for_item(&self, item: &str) -> impl Iterator<Item = &Guard> {
        self.guards.iter().filter(move |guard| guard.scope.includes(item))
    }
}

impl GuardScope {
    fn includes(&self, item: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(item)) && !self.except.contains(item)
    }
}

impl GuardKind {
    fn name(&self) -> &'static str {
        match self {
            Self::Strip => "strip",
            Self::Redact(_) => "redact",
            Self::Size(_) => "size",
        }
    }

    /// The filtered text. `field` is the name of the JSON field whose value it is.
    fn filter<'t>(
        &self,
        field: Option<&str>,
        text: &'t str,
        counts: &mut GuardCounts,
    ) -> Cow<'t, str> {
        let filtered = match self {
            Self::Strip => strip::strip(text),
            Self::Redact(redactor) => {
                return redactor
                    .redact_field(field, text, &mut |name, count| counts.add(name, count));
            }
            Self::Size(cap) => cap.text(text),
        };
        if let Cow::Owned(_) = filtered {
            counts.add(self.name(), 1);
        }
        filtered
    }
}

impl GuardCounts {
    fn add(&mut self, name: &str, count: u64) {
        match self.0.get_mut(name) {
            Some(sum) => *sum += count,
            None => _ = self.0.insert(name.to_owned(), count),
        }
    }
}
