//! Parses TOML or JSON as a type, and finds everything that does not fit it.
//!
//! Serde stops at the first error. So the text is parsed to a tree, the type is deserialized from
//! it, and what an error points at is removed from the tree before the next attempt.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeArray, DeString, DeTable, DeValue, ValueDeserializer},
};

use crate::{
    ConfigText,
    found::Found,
    json,
    wording::{Syntax, describe},
};

#[cfg(test)]
mod tests;

/// A file with more mistakes reports the first ones.
pub(crate) const MISTAKES_MAX: usize = 100;

/// A table of the file, at its top level or in an array there.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) span: Range<usize>,
    /// Whether a mistake in it has been reported.
    pub(crate) is_wrong: bool,
}

/// Parses the text. Returns the value of what fits, the tables of the file, and what is wrong.
pub(crate) fn parse<T: DeserializeOwned>(text: &ConfigText) -> (Option<T>, Vec<Entry>, Vec<Found>) {
    let (table, errors) = DeTable::parse_recoverable(text.as_str());
    let root = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    let entries = entries(root.get_ref());
    let mut tree = Tree { root, syntax: Syntax::Toml, removed: Vec::new() };
    let mut found = Vec::new();
    let mut is_readable = true;
    for error in errors {
        let span = error.span().unwrap_or_default();
        // Of a value without quotes and of a duplicate key the parser has made the best.
        is_readable &= tree.remove(&span).is_some() || error.message() == "duplicate key";
        found.push(Found { span, problem: error.message().to_owned(), help: None });
    }
    if !is_readable {
        // What follows from a bracket that is missing is no mistake.
        found.sort_by_key(|found| line_of(text, found));
        found.dedup_by_key(|found| line_of(text, found));
        return (None, entries, found);
    }
    (tree.fit(text, &mut found), entries, found)
}

/// As [`parse`], for JSON. Of syntax errors there is only the first.
pub(crate) fn parse_json<T: DeserializeOwned>(
    text: &ConfigText,
) -> (Option<T>, Vec<Entry>, Vec<Found>) {
    let mut found = Vec::new();
    let Some(root) = json::parse(text.as_str(), &mut found) else {
        return (None, Vec::new(), found);
    };
    let entries = entries(root.get_ref());
    let mut tree = Tree { root, syntax: Syntax::Json, removed: Vec::new() };
    (tree.fit(text, &mut found), entries, found)
}

fn line_of(text: &ConfigText, found: &Found) -> usize {
    text.as_str().bytes().take(found.span.start).filter(|byte| *byte == b'\n').count()
}

/// What remains of a file.
struct Tree<'a> {
    root: Spanned<DeValue<'a>>,
    syntax: Syntax,
    removed: Vec<Removed>,
}

/// Something that was removed from a table, or its correct name.
#[derive(Clone)]
struct Removed {
    table: Range<usize>,
    key: String,
}

impl Tree<'_> {
    /// The value of what fits the type. What does not is removed, and added to `found`.
    fn fit<T: DeserializeOwned>(&mut self, text: &ConfigText, found: &mut Vec<Found>) -> Option<T> {
        while found.len() < MISTAKES_MAX {
            let error = match T::deserialize(ValueDeserializer::from(self.root.clone())) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let span = error.span().unwrap_or_default();
            let message = error.message();
            let missing =
                message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            let is_consequence = missing.is_some_and(|name| self.has_removed(&span, name));
            let removed = self.remove(&span);
            let key = removed.as_ref().map(|removed| removed.key.as_str());
            let mistake = describe(text, self.syntax, span, message, key);
            if let (Some(removed), Some(suggested)) = (removed.as_ref(), &mistake.suggested) {
                self.removed.push(Removed { table: removed.table.clone(), key: suggested.clone() });
            }
            if !is_consequence && !found.contains(&mistake.found) {
                found.push(mistake.found);
            }
            if removed.is_none() {
                break;
            }
        }
        None
    }

    /// Removes the innermost value or key with this place. `None` if no value has it.
    fn remove(&mut self, span: &Range<usize>) -> Option<Removed> {
        let at = self.root.span();
        let removed = match self.root.get_mut() {
            DeValue::Table(table) => remove_from_table(table, at, span),
            DeValue::Array(array) => remove_from_array(array, "", span),
            _ => None,
        }?;
        self.removed.push(removed.clone());
        Some(removed)
    }

    fn has_removed(&self, table: &Range<usize>, key: &str) -> bool {
        self.removed.iter().any(|removed| removed.table == *table && removed.key == key)
    }
}

fn remove_from_table(
    table: &mut DeTable<'_>,
    at: Range<usize>,
    span: &Range<usize>,
) -> Option<Removed> {
    for (key, value) in table.iter_mut() {
        let at = value.span();
        let removed = match value.get_mut() {
            DeValue::Table(table) => remove_from_table(table, at, span),
            DeValue::Array(array) => remove_from_array(array, key.get_ref(), span),
            _ => None,
        };
        if removed.is_some() {
            return removed;
        }
    }
    let is_it = |(name, value): &(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
        name.span() == *span || value.span() == *span
    };
    let key = table.iter().find(is_it)?.0.get_ref().to_string();
    table.remove(key.as_str());
    Some(Removed { table: at, key })
}

fn remove_from_array(array: &mut DeArray<'_>, key: &str, span: &Range<usize>) -> Option<Removed> {
    for value in array.iter_mut() {
        let at = value.span();
        let removed = match value.get_mut() {
            DeValue::Table(table) => remove_from_table(table, at, span),
            DeValue::Array(array) => remove_from_array(array, key, span),
            _ => None,
        };
        if removed.is_some() {
            return removed;
        }
    }
    let index = array.iter().position(|value| value.span() == *span)?;
    let values = std::mem::replace(array, DeArray::new()).into_iter().enumerate();
    *array = values.filter(|(at, _)| *at != index).map(|(_, value)| value).collect();
    Some(Removed { table: span.clone(), key: key.to_owned() })
}

/// The tables of the file, at its top level and in arrays there.
fn entries(root: &DeValue<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let DeValue::Array(array) = root {
        let entry = |value| Entry { key: String::new(), span: extent(value), is_wrong: false };
        return array.iter().map(entry).collect();
    }
    for (key, value) in root.as_table().into_iter().flatten() {
        let mut add = |span| {
            entries.push(Entry { key: key.get_ref().to_string(), span, is_wrong: false });
        };
        match value.get_ref() {
            DeValue::Array(array) if array.iter().all(|value| value.get_ref().is_table()) => {
                array.iter().for_each(|table| add(extent(table)));
            }
            _ => add(union(key.span(), extent(value))),
        }
    }
    // The smallest of those that overlap is found first.
    entries.sort_by_key(|entry| entry.span.len());
    entries
}

/// The bytes from the beginning of a value to its end, with its header.
fn extent(value: &Spanned<DeValue<'_>>) -> Range<usize> {
    match value.get_ref() {
        DeValue::Table(table) => {
            let parts = table.iter().map(|(key, value)| union(key.span(), extent(value)));
            parts.fold(value.span(), union)
        }
        DeValue::Array(array) => array.iter().map(extent).fold(value.span(), union),
        _ => value.span(),
    }
}

fn union(one: Range<usize>, other: Range<usize>) -> Range<usize> {
    one.start.min(other.start)..one.end.max(other.end)
}
