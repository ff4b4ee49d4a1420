//! The events that services log, read from their source: each call of `tracing`'s macros is a row.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};

use super::table;

/// The crates of the services' processes, below the root of the repository.
const CRATES: [&str; 11] = [
    "audit",
    "sdk/credentials",
    "sdk/runtime",
    "sdk/transport",
    "services/auth",
    "services/edge",
    "services/idp",
    "services/tools/code",
    "services/tools/invoices",
    "services/tools/tickets",
    "sdk",
];
/// Levels that the default filter logs, the most severe first.
const LEVELS: [&str; 3] = ["error", "warn", "info"];
/// The macro for events of calls, which are at level `info` and have the caller's fields.
const LOG_CALL: &str = "log_call";

/// An event: its level as an index, its message, and its fields.
type Event = (usize, String, Vec<String>);

/// The events of each crate, as a part of the documentation.
pub(super) fn parts() -> impl Iterator<Item = (String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    CRATES.into_iter().filter_map(move |name| {
        let mut events = BTreeSet::new();
        // Outside of a checkout there is no source, and no documentation to write.
        let files = files(&root.join(name).join("src")).unwrap_or_default();
        for file in files {
            let text = fs::read_to_string(file).unwrap_or_default();
            collect(text.parse().unwrap_or_default(), &mut events);
        }
        let rows = events.into_iter().map(|(level, message, fields)| {
            let fields: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
            [LEVELS[level].to_owned(), message, fields.join(", ")]
        });
        let rows: Vec<_> = rows.collect();
        let part = name.rsplit('/').next().unwrap_or(name);
        let is_documented = !rows.is_empty();
        let text = table(["level", "message", "fields"], rows);
        is_documented.then(|| (format!("log events {part}"), text))
    })
}

/// The source files below a folder, without those of tests.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if name == "tests" || name == "testing" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn collect(tokens: TokenStream, events: &mut BTreeSet<Event>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let before = |back: usize| at.checked_sub(back).map(|at| tokens[at].to_string());
        let word = |back| before(back).unwrap_or_default();
        if word(2) == "mod" && word(1) == "tests" {
            continue;
        }
        let level = LEVELS.into_iter().position(|level| level == word(2));
        let level = match level {
            Some(level) if word(5) == "tracing" => Some(level),
            _ if word(2) == LOG_CALL => Some(2),
            _ => None,
        };
        match level.filter(|_| word(1) == "!") {
            Some(level) => events.extend(event(level, group.stream(), word(2) == LOG_CALL)),
            None => collect(group.stream(), events),
        }
    }
}

/// The event of a macro with these arguments. `None`: it has no message of its own.
fn event(level: usize, arguments: TokenStream, is_call: bool) -> Option<Event> {
    let tokens: Vec<_> = arguments.into_iter().collect();
    let mut arguments = tokens.split(|token| token.to_string() == ",");
    let mut fields = BTreeMap::new();
    if is_call {
        // The caller.
        arguments.next();
        fields.insert(0, "who calls".to_owned());
    }
    for (number, argument) in (1..).zip(arguments) {
        let texts: Vec<_> = argument.iter().map(ToString::to_string).collect();
        let name_ends = texts.iter().position(|text| text == "=" || text == ":");
        let name: String = texts[..name_ends.unwrap_or(texts.len())].concat();
        if name_ends.is_none() && name.starts_with('"') {
            return Some((level, unquoted(&name), fields.into_values().collect()));
        }
        let is_parent = name_ends.is_some_and(|at| texts[at] == ":");
        if !is_parent && !name.is_empty() {
            let name = unquoted(name.trim_start_matches(['%', '?'])).replace("[]", "");
            fields.insert(number, name);
        }
    }
    None
}

fn unquoted(text: &str) -> String {
    text.trim_matches('"').replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_their_level_message_and_fields() {
        let source = r#"
            fn f() {
                tracing::info!(a, %b, c.d = 1 + 1, ?e, "it happened");
                if x { crate::log_call!(caller, "ids[]" = %ids, "called"); }
                tracing::warn!(error = error.source(), "{message}");
                tracing::debug!("not logged by default");
                tracing::error!("a \"quoted\" text: {error}");
            }
            mod tests { fn g() { tracing::info!("in a test"); } }
        "#;
        let mut events = BTreeSet::new();
        collect(source.parse().unwrap(), &mut events);
        let rows: Vec<_> = events
            .into_iter()
            .map(|(level, message, fields)| format!("{level} {message}: {}", fields.join(" ")))
            .collect();
        assert_eq!(
            rows,
            [
                "0 a \"quoted\" text: {error}: ",
                "1 {message}: error",
                "2 called: who calls ids",
                "2 it happened: a b c.d e",
            ]
        );
    }
}
