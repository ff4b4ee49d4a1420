//! Guards as they stand in the config file.

use std::collections::BTreeSet;

use drawbridge_sdk::{ConfigText, ConfigTextError};
use serde::Deserialize;
use toml::Spanned;

use super::{
    Guard, Kind, Rules, Scope,
    redact::{Class, Own, Redactor},
    size::{BYTES_MIN, Cap},
};

const GUARDS_MAX: usize = 32;
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 64;
const REPLACEMENT_BYTES_MAX: usize = 128;
/// No answer of a tool service is larger.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `[[guard]]`: one guard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuardEntry {
    kind: Spanned<Name>,
    /// For `redact`: what is built in.
    #[serde(default)]
    redact: Vec<Class>,
    /// For `redact`: one's own patterns.
    #[serde(default)]
    patterns: Vec<PatternEntry>,
    /// For `size`.
    bytes_max: Option<Spanned<u64>>,
    /// The tools, resources and prompts that it is for. Absent: all.
    only: Option<BTreeSet<String>>,
    /// Those that it is not for.
    #[serde(default)]
    except: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Strip,
    Redact,
    Size,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternEntry {
    name: Spanned<String>,
    pattern: Spanned<String>,
    replacement: Option<Spanned<String>>,
}

impl Rules {
    /// Reads the guards of this text.
    pub(crate) fn new(text: &ConfigText, entries: &[GuardEntry]) -> Result<Self, ConfigTextError> {
        if let Some(entry) = entries.get(GUARDS_MAX) {
            return Err(text.wrong(
                entry.kind.span().start,
                format!("there are more than {GUARDS_MAX} guards"),
            ));
        }
        let guards = entries.iter().map(|entry| guard(text, entry)).collect::<Result<_, _>>()?;
        for pair in entries.windows(2) {
            let (first, second) = (pair[0].kind.get_ref(), pair[1].kind.get_ref());
            let lost = match (first, second) {
                (Name::Redact | Name::Size, Name::Strip) => {
                    "what unseen characters split is not found"
                }
                (Name::Size, Name::Redact) => "what the cap cuts in two is not found",
                _ => continue,
            };
            tracing::warn!(
                ?first,
                ?second,
                "guards work in the order of the config file: in this one, {lost}"
            );
        }
        Ok(Self { guards })
    }
}

fn guard(text: &ConfigText, entry: &GuardEntry) -> Result<Guard, ConfigTextError> {
    let name = *entry.kind.get_ref();
    let wrong = |problem: &str| Err(text.wrong(entry.kind.span().start, problem));
    if name != Name::Redact && !(entry.redact.is_empty() && entry.patterns.is_empty()) {
        return wrong("only a guard of the kind redact has redact and patterns");
    }
    if name != Name::Size && entry.bytes_max.is_some() {
        return wrong("only a guard of the kind size has bytes_max");
    }
    if entry.only.as_ref().is_some_and(BTreeSet::is_empty) {
        return wrong("the guard is for nothing");
    }
    let kind = match (name, &entry.bytes_max) {
        (Name::Strip, _) => Kind::Strip,
        (Name::Redact, _) if entry.redact.is_empty() && entry.patterns.is_empty() => {
            return wrong("the guard looks for nothing: give redact or patterns");
        }
        (Name::Redact, _) => Kind::Redact(redactor(text, entry)?),
        (Name::Size, None) => return wrong("a guard of the kind size has bytes_max"),
        (Name::Size, Some(bytes_max)) => {
            let given = usize::try_from(*bytes_max.get_ref()).ok();
            let given =
                given.filter(|given| *given >= BYTES_MIN && *bytes_max.get_ref() <= BYTES_MAX);
            let problem = || format!("bytes_max must be from {BYTES_MIN} to {BYTES_MAX}");
            Kind::Size(Cap(given.ok_or_else(|| text.wrong(bytes_max.span().start, problem()))?))
        }
    };
    Ok(Guard { kind, scope: Scope { only: entry.only.clone(), except: entry.except.clone() } })
}

fn redactor(text: &ConfigText, entry: &GuardEntry) -> Result<Redactor, ConfigTextError> {
    let wrong =
        |place: std::ops::Range<usize>, problem: String| Err(text.wrong(place.start, problem));
    if entry.patterns.len() > PATTERNS_MAX {
        return wrong(entry.kind.span(), format!("a guard has at most {PATTERNS_MAX} patterns"));
    }
    for PatternEntry { name, pattern, replacement } in &entry.patterns {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(1..=NAME_BYTES_MAX).contains(&name.get_ref().len())
            || !name.get_ref().bytes().all(allowed)
        {
            let problem = format!(
                "a pattern's name has 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 _ -"
            );
            return wrong(name.span(), problem);
        }
        if pattern.get_ref().len() > PATTERN_BYTES_MAX {
            return wrong(
                pattern.span(),
                format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"),
            );
        }
        if let Some(replacement) = replacement
            && replacement.get_ref().len() > REPLACEMENT_BYTES_MAX
        {
            return wrong(
                replacement.span(),
                format!("a replacement has at most {REPLACEMENT_BYTES_MAX} bytes"),
            );
        }
    }
    let own = entry.patterns.iter().map(|entry| Own {
        name: entry.name.get_ref(),
        pattern: entry.pattern.get_ref(),
        replacement: entry.replacement.as_ref().map(|replacement| replacement.get_ref().as_str()),
    });
    Redactor::new(&entry.redact, &own.collect::<Vec<_>>()).map_err(|(number, error)| {
        let place =
            entry.patterns.get(number).map_or(entry.kind.span(), |entry| entry.pattern.span());
        text.wrong(place.start, format!("the pattern cannot be looked for: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Services, parse};

    fn read(text: &str) -> Result<Rules, String> {
        let text = ConfigText::new("edge.toml", text);
        parse(&text, &Services::new())
            .map(|said| said.duties.guards)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn guards_stand_in_the_order_of_the_file() {
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
        let kinds = |item: &str| rules.of(item).map(|guard| guard.kind.name()).collect::<Vec<_>>();
        assert_eq!(kinds("code_search"), ["strip", "redact", "redact", "size"]);
        assert_eq!(kinds("invoices_get"), ["strip", "redact"]);
        assert_eq!(kinds("other"), ["strip", "redact", "redact"]);
    }

    #[test]
    fn a_mistake_in_a_guard_is_told_with_its_place() {
        let redact = "[[guard]]\nkind = \"redact\"\n";
        let pattern = |pattern: &str| {
            format!("{redact}patterns = [\n  {{ name = \"a\", pattern = {pattern} }},\n]\n")
        };
        let mistakes = [
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
        let told: Vec<_> = mistakes.iter().map(|text| read(text).unwrap_err()).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        edge.toml:2: the guard looks for nothing: give redact or patterns
        edge.toml: TOML parse error at line 2, column 8
          |
        2 | kind = "sort"
          |        ^^^^^^
        unknown variant `sort`, expected one of `strip`, `redact`, `size`

        edge.toml: TOML parse error at line 3, column 11
          |
        3 | redact = ["names"]
          |           ^^^^^^^
        unknown variant `names`, expected one of `secrets`, `cards`, `iban`, `email`

        edge.toml:2: only a guard of the kind size has bytes_max
        edge.toml:2: the guard is for nothing
        edge.toml:4: the pattern cannot be looked for: regex parse error:
            (
            ^
        error: unclosed group
        edge.toml:4: the pattern cannot be looked for: it matches where nothing stands
        edge.toml:4: the pattern cannot be looked for: what replaces it would be replaced again: "[redacted:a]"
        edge.toml:4: a pattern's name has 1 to 64 of the characters A-Z a-z 0-9 _ -
        edge.toml:2: only a guard of the kind redact has redact and patterns
        edge.toml:2: a guard of the kind size has bytes_max
        edge.toml:3: bytes_max must be from 256 to 16777216
        edge.toml:3: bytes_max must be from 256 to 16777216
        "#);
    }
}
