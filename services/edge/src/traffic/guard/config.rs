//! The `[[guard]]` entries of the config file.

use std::collections::BTreeSet;

use drawbridge_config::{
    Mistakes, Spanned,
    edge::{GuardEntry, GuardKindName},
};

use super::{
    Guard, GuardKind, GuardRules, GuardScope,
    redact::{CustomPattern, Redactor},
    size::SizeCap,
};

const GUARDS_MAX: usize = 32;
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 1024;
const REPLACEMENT_BYTES_MAX: usize = 128;

impl GuardRules {
    /// The guards of the config file.
    pub(crate) fn new(entries: &[GuardEntry], mistakes: &mut Mistakes<'_>) -> Self {
        if let Some(entry) = entries.get(GUARDS_MAX) {
            mistakes.push(entry.kind.span(), format!("there are more than {GUARDS_MAX} guards"));
        }
        let guards = entries.iter().map(|entry| guard(entry, mistakes)).collect();
        for pair in entries.windows(2) {
            let (first, second) = (*pair[0].kind, *pair[1].kind);
            let consequence = match (first, second) {
                (GuardKindName::Redact | GuardKindName::Size, GuardKindName::Strip) => {
                    "text that invisible characters split is not matched"
                }
                (GuardKindName::Size, GuardKindName::Redact) => {
                    "text that the size cap splits is not matched"
                }
                _ => continue,
            };
            tracing::warn!(
                ?first,
                ?second,
                "guards apply in the order of the config file; with this order, {consequence}"
            );
        }
        Self { guards }
    }
}

fn guard(entry: &GuardEntry, mistakes: &mut Mistakes<'_>) -> Guard {
    let name = *entry.kind;
    let mut invalid = |problem: &str| mistakes.push_combined(entry.kind.span(), problem);
    let has_patterns = !(entry.redact.is_empty() && entry.patterns.is_empty());
    match name {
        GuardKindName::Redact if !has_patterns => {
            invalid("a guard of kind `redact` requires `redact` or `patterns`");
        }
        GuardKindName::Strip | GuardKindName::Size if has_patterns => {
            invalid("only a guard of kind `redact` may have `redact` and `patterns`");
        }
        _ => {}
    }
    match (name, &entry.bytes_max) {
        (GuardKindName::Size, None) => invalid("a guard of kind `size` requires `bytes_max`"),
        (GuardKindName::Strip | GuardKindName::Redact, Some(_)) => {
            invalid("only a guard of kind `size` may have `bytes_max`");
        }
        _ => {}
    }
    if entry.only.as_ref().is_some_and(BTreeSet::is_empty) {
        invalid("`only` is empty, so the guard applies to no item");
    }
    let bytes_max = entry.bytes_max.as_ref().and_then(|bytes| usize::try_from(bytes.get()).ok());
    let kind = match name {
        GuardKindName::Strip => GuardKind::Strip,
        GuardKindName::Redact => {
            redactor(entry, mistakes).map_or(GuardKind::Strip, GuardKind::Redact)
        }
        GuardKindName::Size => GuardKind::Size(SizeCap(bytes_max.unwrap_or(usize::MAX))),
    };
    Guard { kind, scope: GuardScope { only: entry.only.clone(), except: entry.except.clone() } }
}

/// `None`: a mistake was reported.
fn redactor(entry: &GuardEntry, mistakes: &mut Mistakes<'_>) -> Option<Redactor> {
    if entry.patterns.len() > PATTERNS_MAX {
        let problem = format!("a guard may have at most {PATTERNS_MAX} patterns");
        mistakes.push(entry.kind.span(), problem);
        return None;
    }
    let mut is_valid = true;
    for pattern in &entry.patterns {
        let mut check = |text: &Spanned<String>, what: &str, bytes_max: usize| {
            if text.len() > bytes_max {
                mistakes.push(text.span(), format!("the {what} exceeds {bytes_max} bytes"));
                is_valid = false;
            }
        };
        check(&pattern.pattern, "pattern", PATTERN_BYTES_MAX);
        if let Some(replacement) = &pattern.replacement {
            check(replacement, "replacement", REPLACEMENT_BYTES_MAX);
        }
    }
    if !is_valid {
        return None;
    }
    let custom = entry.patterns.iter().map(|entry| CustomPattern {
        name: entry.name.as_str(),
        pattern: &entry.pattern,
        replacement: entry.replacement.as_ref().map(|replacement| replacement.as_str()),
    });
    let redactor = Redactor::new(&entry.redact, &custom.collect::<Vec<_>>());
    redactor
        .map_err(|errors| {
            for (number, error) in errors {
                let span = entry.patterns.get(number).map(|entry| entry.pattern.span());
                // The last line of an error of `regex` is the reason; the others quote the pattern.
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ");
                let problem = format!("invalid pattern: {reason}");
                mistakes.push(span.unwrap_or(entry.kind.span()), problem);
            }
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::testdata;

    fn read(text: &str) -> Result<GuardRules, String> {
        testdata::read(text, |file, mistakes| GuardRules::new(&file.guard, mistakes))
    }

    #[test]
    fn guards_apply_in_the_order_of_the_config_file() {
        let rules = read(
            r#"
            [[guard]]
            kind = "strip"
            [[guard]]
            kind = "redact"
            redact = ["secrets", "cards", "email"]
            patterns = [{ name = "staff", pattern = 'E-\d{6}', replacement = "[staff]" }]
            [[guard]]
            kind = "redact"
            redact = ["iban"]
            except = ["invoices_get"]
            [[guard]]
            kind = "size"
            bytes_max = 100_000
            only = ["code_search"]
            "#,
        );
        let rules = rules.unwrap();
        let kinds =
            |item: &str| rules.for_item(item).map(|guard| guard.kind.name()).collect::<Vec<_>>();
        assert_eq!(kinds("code_search"), ["strip", "redact", "redact", "size"]);
        assert_eq!(kinds("invoices_get"), ["strip", "redact"]);
        assert_eq!(kinds("other"), ["strip", "redact", "redact"]);
    }

    #[test]
    fn an_invalid_guard_is_reported_with_its_line() {
        let redact = "[[guard]]\nkind = \"redact\"\n";
        let pattern = |pattern: &str| {
            format!("{redact}patterns = [\n  {{ name = \"a\", pattern = {pattern} }},\n]\n")
        };
        let invalid = [
            redact.to_owned(),
            redact.replace("redact", "sort"),
            format!("{redact}redact = [\"names\"]\n"),
            format!("{redact}redact = [\"email\"]\nbytes_max = 1000\n"),
            format!("{redact}redact = [\"email\"]\nonly = []\n"),
            pattern("'('"),
            pattern("'a*'"),
            pattern("'[a-z]+'"),
            pattern("'x'").replace("\"a\"", "\"a b\""),
            "[[guard]]\nkind = \"strip\"\nredact = [\"email\"]\n".to_owned(),
            "[[guard]]\nkind = \"size\"\n".to_owned(),
            "[[guard]]\nkind = \"size\"\nbytes_max = 255\n".to_owned(),
            "[[guard]]\nkind = \"size\"\nbytes_max = 99999999999\n".to_owned(),
        ];
        let messages: Vec<_> = invalid.iter().map(|text| read(text).unwrap_err()).collect();
        insta::assert_snapshot!(messages.join("\n"), @r#"
        edge.toml:2:8: a guard of kind `redact` requires `redact` or `patterns`
          |
        2 | kind = "redact"
          |        ^^^^^^^^
        edge.toml:2:8: unknown variant `sort`, expected one of `strip`, `redact`, `size`
          |
        2 | kind = "sort"
          |        ^^^^^^
        edge.toml:3:11: unknown variant `names`, expected one of `secrets`, `cards`, `iban`, `email`
          |
        3 | redact = ["names"]
          |           ^^^^^^^
        edge.toml:2:8: only a guard of kind `size` may have `bytes_max`
          |
        2 | kind = "redact"
          |        ^^^^^^^^
        edge.toml:2:8: `only` is empty, so the guard applies to no item
          |
        2 | kind = "redact"
          |        ^^^^^^^^
        edge.toml:4:27: invalid pattern: unclosed group
          |
        4 |   { name = "a", pattern = '(' },
          |                           ^^^
        edge.toml:4:27: invalid pattern: it matches the empty text
          |
        4 |   { name = "a", pattern = 'a*' },
          |                           ^^^^
        edge.toml:4:27: invalid pattern: its replacement "[redacted:a]" would match again
          |
        4 |   { name = "a", pattern = '[a-z]+' },
          |                           ^^^^^^^^
        edge.toml:4:12: invalid name: expected 1 to 64 of the characters A-Z a-z 0-9 _ -
          |
        4 |   { name = "a b", pattern = 'x' },
          |            ^^^^^
        edge.toml:2:8: only a guard of kind `redact` may have `redact` and `patterns`
          |
        2 | kind = "strip"
          |        ^^^^^^^
        edge.toml:2:8: a guard of kind `size` requires `bytes_max`
          |
        2 | kind = "size"
          |        ^^^^^^
        edge.toml:3:13: must be from 256 to 16777216
          |
        3 | bytes_max = 255
          |             ^^^
        edge.toml:3:13: must be from 256 to 16777216
          |
        3 | bytes_max = 99999999999
          |             ^^^^^^^^^^^
        "#);
    }
}
