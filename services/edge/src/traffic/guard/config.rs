//! The `[[guard]]` entries of the config file.

use std::collections::BTreeSet;

use drawbridge_runtime::{ConfigText, ConfigTextError};
use serde::Deserialize;
use toml::Spanned;

use super::{
    Guard, GuardKind, GuardRules, GuardScope,
    redact::{CustomPattern, PatternClass, Redactor},
    size::{BYTES_MIN, SizeCap},
};

const GUARDS_MAX: usize = 32;
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 64;
const REPLACEMENT_BYTES_MAX: usize = 128;
/// No response of a tool service is larger.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `[[guard]]`: one guard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuardEntry {
    kind: Spanned<KindName>,
    /// For `redact`: built-in classes.
    #[serde(default)]
    redact: Vec<PatternClass>,
    /// For `redact`: custom patterns.
    #[serde(default)]
    patterns: Vec<PatternEntry>,
    /// For `size`.
    bytes_max: Option<Spanned<u64>>,
    /// The tools, resources and prompts to which it applies. Absent: all.
    only: Option<BTreeSet<String>>,
    /// Items to which it does not apply.
    #[serde(default)]
    except: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
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

impl GuardRules {
    /// Reads the guards of the config file.
    pub(crate) fn new(text: &ConfigText, entries: &[GuardEntry]) -> Result<Self, ConfigTextError> {
        if let Some(entry) = entries.get(GUARDS_MAX) {
            return Err(text.error_at(
                entry.kind.span().start,
                format!("there are more than {GUARDS_MAX} guards"),
            ));
        }
        let guards = entries.iter().map(|entry| guard(text, entry)).collect::<Result<_, _>>()?;
        for pair in entries.windows(2) {
            let (first, second) = (pair[0].kind.get_ref(), pair[1].kind.get_ref());
            let consequence = match (first, second) {
                (KindName::Redact | KindName::Size, KindName::Strip) => {
                    "text that invisible characters split is not matched"
                }
                (KindName::Size, KindName::Redact) => {
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
        Ok(Self { guards })
    }
}

fn guard(text: &ConfigText, entry: &GuardEntry) -> Result<Guard, ConfigTextError> {
    let name = *entry.kind.get_ref();
    let invalid = |problem: &str| Err(text.error_at(entry.kind.span().start, problem));
    if name != KindName::Redact && !(entry.redact.is_empty() && entry.patterns.is_empty()) {
        return invalid("only a guard of kind `redact` may have `redact` and `patterns`");
    }
    if name != KindName::Size && entry.bytes_max.is_some() {
        return invalid("only a guard of kind `size` may have `bytes_max`");
    }
    if entry.only.as_ref().is_some_and(BTreeSet::is_empty) {
        return invalid("`only` is empty, so the guard applies to no item");
    }
    let kind = match (name, &entry.bytes_max) {
        (KindName::Strip, _) => GuardKind::Strip,
        (KindName::Redact, _) if entry.redact.is_empty() && entry.patterns.is_empty() => {
            return invalid("a guard of kind `redact` requires `redact` or `patterns`");
        }
        (KindName::Redact, _) => GuardKind::Redact(redactor(text, entry)?),
        (KindName::Size, None) => return invalid("a guard of kind `size` requires `bytes_max`"),
        (KindName::Size, Some(bytes_max)) => {
            let bytes = usize::try_from(*bytes_max.get_ref()).ok();
            let bytes =
                bytes.filter(|bytes| *bytes >= BYTES_MIN && *bytes_max.get_ref() <= BYTES_MAX);
            let problem = || format!("bytes_max must be from {BYTES_MIN} to {BYTES_MAX}");
            GuardKind::Size(SizeCap(
                bytes.ok_or_else(|| text.error_at(bytes_max.span().start, problem()))?,
            ))
        }
    };
    Ok(Guard { kind, scope: GuardScope { only: entry.only.clone(), except: entry.except.clone() } })
}

fn redactor(text: &ConfigText, entry: &GuardEntry) -> Result<Redactor, ConfigTextError> {
    let invalid =
        |place: std::ops::Range<usize>, problem: String| Err(text.error_at(place.start, problem));
    if entry.patterns.len() > PATTERNS_MAX {
        return invalid(
            entry.kind.span(),
            format!("a guard may have at most {PATTERNS_MAX} patterns"),
        );
    }
    for PatternEntry { name, pattern, replacement } in &entry.patterns {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(1..=NAME_BYTES_MAX).contains(&name.get_ref().len())
            || !name.get_ref().bytes().all(allowed)
        {
            let problem = format!(
                "invalid pattern name (expected 1 to {NAME_BYTES_MAX} of the characters \
                 A-Z a-z 0-9 _ -)"
            );
            return invalid(name.span(), problem);
        }
        if pattern.get_ref().len() > PATTERN_BYTES_MAX {
            return invalid(
                pattern.span(),
                format!("the pattern exceeds {PATTERN_BYTES_MAX} bytes"),
            );
        }
        if let Some(replacement) = replacement
            && replacement.get_ref().len() > REPLACEMENT_BYTES_MAX
        {
            return invalid(
                replacement.span(),
                format!("the replacement exceeds {REPLACEMENT_BYTES_MAX} bytes"),
            );
        }
    }
    let custom = entry.patterns.iter().map(|entry| CustomPattern {
        name: entry.name.get_ref(),
        pattern: entry.pattern.get_ref(),
        replacement: entry.replacement.as_ref().map(|replacement| replacement.get_ref().as_str()),
    });
    Redactor::new(&entry.redact, &custom.collect::<Vec<_>>()).map_err(|(number, error)| {
        let place =
            entry.patterns.get(number).map_or(entry.kind.span(), |entry| entry.pattern.span());
        text.error_at(place.start, format!("invalid pattern: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct GuardTables {
        #[serde(default)]
        guard: Vec<GuardEntry>,
    }

    fn read(text: &str) -> Result<GuardRules, String> {
        let text = ConfigText::new("edge.toml", text);
        let tables = text.parse::<GuardTables>();
        tables
            .and_then(|tables| GuardRules::new(&text, &tables.guard))
            .map_err(|error| error.to_string())
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
        edge.toml:2: a guard of kind `redact` requires `redact` or `patterns`
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

        edge.toml:2: only a guard of kind `size` may have `bytes_max`
        edge.toml:2: `only` is empty, so the guard applies to no item
        edge.toml:4: invalid pattern: regex parse error:
            (
            ^
        error: unclosed group
        edge.toml:4: invalid pattern: it matches the empty text
        edge.toml:4: invalid pattern: its replacement "[redacted:a]" would match again
        edge.toml:4: invalid pattern name (expected 1 to 64 of the characters A-Z a-z 0-9 _ -)
        edge.toml:2: only a guard of kind `redact` may have `redact` and `patterns`
        edge.toml:2: a guard of kind `size` requires `bytes_max`
        edge.toml:3: bytes_max must be from 256 to 16777216
        edge.toml:3: bytes_max must be from 256 to 16777216
        "#);
    }
}
