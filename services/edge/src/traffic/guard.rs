//! Guardrails on content: what goes back to a model passes the guards of the config file, in its order.
//!
//! A guard is a [`Kind`]: it says what stands in place of a text, or how large an answer may be. Where the texts of an
//! answer are is [`content`]'s affair.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rmcp::model::{CallToolResult, GetPromptResult, ReadResourceResult};
use serde_json::Value;

use self::{content::Working, json::guard_value, redact::Redactor, size::Cap};

pub(crate) use self::{config::GuardEntry, strip::is_unseen};

mod config;
mod content;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod json;
mod redact;
mod size;
mod strip;

/// The guards of the moment.
#[derive(Debug, Default)]
pub(crate) struct Guards(ArcSwap<Rules>);

/// The guards of one config file.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    guards: Vec<Guard>,
}

#[derive(Debug)]
struct Guard {
    kind: Kind,
    scope: Scope,
}

/// What a guard does.
#[derive(Debug)]
enum Kind {
    /// Takes out what is not seen.
    Strip,
    /// Replaces secrets and personal data.
    Redact(Redactor),
    /// Cuts what is too long.
    Size(Cap),
}

/// Whose answers a guard sees, by the names of tools, resources and prompts.
#[derive(Debug)]
struct Scope {
    only: Option<BTreeSet<String>>,
    except: BTreeSet<String>,
}

/// What guards did to one answer.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, u64>);

impl Guards {
    /// These guards hold from now on.
    pub(crate) fn set(&self, rules: Rules) {
        self.0.store(Arc::new(rules));
    }

    /// Whether any guard sees what this item answers.
    pub(crate) fn watch(&self, item: &str) -> bool {
        self.0.load().of(item).next().is_some()
    }

    /// A tool's result as its model may see it.
    pub(crate) fn tool_result(&self, tool: &str, mut result: CallToolResult) -> CallToolResult {
        self.work(tool, |working| working.tool_result(&mut result));
        result
    }

    /// A resource's contents as a model may see them.
    pub(crate) fn resource(
        &self,
        resource: &str,
        mut result: ReadResourceResult,
    ) -> ReadResourceResult {
        self.work(resource, |working| working.resource(&mut result));
        result
    }

    /// A prompt as a model may see it.
    pub(crate) fn prompt(&self, prompt: &str, mut result: GetPromptResult) -> GetPromptResult {
        self.work(prompt, |working| working.prompt(&mut result));
        result
    }

    /// Texts of an item as a model may see them.
    pub(crate) fn texts<'t>(&self, item: &str, texts: impl IntoIterator<Item = &'t mut String>) {
        let mut texts: Vec<_> = texts.into_iter().collect();
        self.work(item, |working| working.texts(texts.iter_mut().map(|text| &mut **text)));
    }

    /// A value of an item as a model may see it.
    pub(crate) fn value(&self, item: &str, value: &mut Value) {
        self.work(item, |working| guard_value(value, working));
    }

    fn work(&self, item: &str, mut work: impl FnMut(&mut Working<'_>)) {
        let rules = self.0.load();
        let mut tally = Tally::default();
        for guard in rules.of(item) {
            work(&mut Working { kind: &guard.kind, tally: &mut tally, changed: false });
        }
        for (found, count) in tally.0 {
            let labels = [("guard", found), ("item", item.to_owned())];
            metrics::counter!("edge_guarded_total", &labels).increment(count);
        }
    }
}

impl Rules {
    /// The guards for this item, in their order.
    fn of(&self, item: &str) -> impl Iterator<Item = &Guard> {
        self.guards.iter().filter(move |guard| guard.scope.has(item))
    }
}

impl Scope {
    fn has(&self, item: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(item)) && !self.except.contains(item)
    }
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Strip => "strip",
            Self::Redact(_) => "redact",
            Self::Size(_) => "size",
        }
    }

    /// What stands in place of a text, which may be the value of a field.
    fn check<'t>(&self, field: Option<&str>, text: &'t str, tally: &mut Tally) -> Cow<'t, str> {
        let checked = match self {
            Self::Strip => strip::strip(text),
            Self::Redact(redactor) => {
                return redactor
                    .redact_field(field, text, &mut |found, count| tally.add(found, count));
            }
            Self::Size(cap) => cap.text(text),
        };
        if let Cow::Owned(_) = checked {
            tally.add(self.name(), 1);
        }
        checked
    }
}

impl Tally {
    fn add(&mut self, found: &str, count: u64) {
        match self.0.get_mut(found) {
            Some(sum) => *sum += count,
            None => _ = self.0.insert(found.to_owned(), count),
        }
    }
}
