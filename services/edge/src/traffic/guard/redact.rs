//! Redacts secrets and personal data in texts.

use std::borrow::Cow;

use drawbridge_config::edge::PatternClass;
use regex::{Regex, RegexBuilder, RegexSet};

use self::patterns::{BUILT_IN, Validation, is_secret_name};

mod numbers;
mod patterns;
#[cfg(test)]
mod tests;

/// The largest compiled custom pattern, in bytes.
const CUSTOM_BYTES_MAX: usize = 256 * 1024;
/// The most passes over a text. The last one usually finds no match.
const PASSES_MAX: usize = 4;
/// The name of a match by field name.
const FIELD: &str = "field";
/// The group of a pattern that is replaced instead of the whole match.
const SECRET_GROUP: &str = "secret";

/// Finds and replaces a set of patterns.
#[derive(Debug)]
pub(super) struct Redactor {
    /// All patterns in one set: most texts match none.
    set: RegexSet,
    patterns: Vec<CompiledPattern>,
    /// The length of the shortest possible match, in bytes.
    match_bytes_min: usize,
    /// Whether values of fields with certain names are redacted.
    checks_field_names: bool,
}

#[derive(Debug)]
struct CompiledPattern {
    name: String,
    regex: Regex,
    replacement: String,
    validation: Validation,
}

/// A pattern from the config file.
#[derive(Debug)]
pub(super) struct CustomPattern<'a> {
    pub(super) name: &'a str,
    pub(super) pattern: &'a str,
    pub(super) replacement: Option<&'a str>,
}

/// Why a pattern is invalid.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatternError {
    #[error("{0}")]
    Regex(#[from] regex::Error),
    #[error("it matches the empty text")]
    Empty,
    #[error("its replacement {0:?} would match again")]
    Replacement(String),
}

impl Redactor {
    /// Combines custom patterns and, after them, built-in ones of these classes. The errors have the
    /// indexes of the invalid custom patterns.
    pub(super) fn new(
        classes: &[PatternClass],
        custom: &[CustomPattern<'_>],
    ) -> Result<Self, Vec<(usize, PatternError)>> {
        let (mut patterns, mut errors) = (Vec::new(), Vec::new());
        for (number, pattern) in custom.iter().enumerate() {
            match CompiledPattern::custom(pattern) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => errors.push((number, error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for built_in in BUILT_IN.iter().filter(|built_in| classes.contains(&built_in.class)) {
            let regex = Regex::new(built_in.pattern).map_err(|error| vec![(0, error.into())])?;
            let (name, replacement) = (built_in.name.to_owned(), replacement(built_in.name));
            patterns.push(CompiledPattern {
                name,
                regex,
                replacement,
                validation: built_in.validation,
            });
        }
        let set = RegexSet::new(patterns.iter().map(|pattern| pattern.regex.as_str()));
        let set = set.map_err(|error| vec![(custom.len().saturating_sub(1), error.into())])?;
        let match_bytes_min = patterns
            .iter()
            .map(|pattern| match_bytes_min(pattern.regex.as_str()))
            .min()
            .unwrap_or(usize::MAX);
        let checks_field_names = classes.contains(&PatternClass::Secrets);
        let redactor = Self { set, patterns, match_bytes_min, checks_field_names };
        for (number, pattern) in redactor.patterns.iter().enumerate() {
            if let Cow::Owned(_) = redactor.redact(&pattern.replacement, &mut |_, _| {}) {
                errors.push((number, PatternError::Replacement(pattern.replacement.clone())));
            }
        }
        if errors.is_empty() { Ok(redactor) } else { Err(errors) }
    }

    /// The redacted text. Calls `found` with the name and number of matches.
    pub(super) fn redact<'t>(
        &self,
        text: &'t str,
        found: &mut impl FnMut(&str, u64),
    ) -> Cow<'t, str> {
        if text.len() < self.match_bytes_min || !self.set.is_match(text) {
            return Cow::Borrowed(text);
        }
        let mut redacted = Cow::Borrowed(text);
        // A replacement may separate a number from a word that it was part of.
        for _ in 0..PASSES_MAX {
            let mut is_done = true;
            for number in self.set.matches(&redacted) {
                let Some(pattern) = self.patterns.get(number) else { continue };
                let (next, count) = pattern.replace(&redacted);
                if let Some(next) = next {
                    found(&pattern.name, count);
                    redacted = Cow::Owned(next);
                    is_done = false;
                }
            }
            if is_done {
                break;
            }
        }
        redacted
    }

    /// Redacts a text that may be the value of a field.
    pub(super) fn redact_field<'t>(
        &self,
        name: Option<&str>,
        text: &'t str,
        found: &mut impl FnMut(&str, u64),
    ) -> Cow<'t, str> {
        if self.checks_field_names && !text.is_empty() && name.is_some_and(is_secret_name) {
            found(FIELD, 1);
            return Cow::Owned(replacement(FIELD));
        }
        self.redact(text, found)
    }
}

impl CompiledPattern {
    fn custom(custom: &CustomPattern<'_>) -> Result<Self, PatternError> {
        let regex = RegexBuilder::new(custom.pattern).size_limit(CUSTOM_BYTES_MAX).build()?;
        if match_bytes_min(custom.pattern) == 0 {
            return Err(PatternError::Empty);
        }
        let replacement =
            custom.replacement.map_or_else(|| replacement(custom.name), ToOwned::to_owned);
        Ok(Self { name: custom.name.to_owned(), regex, replacement, validation: Validation::Shape })
    }

    /// The text with all matches replaced, and their number. `None` without a match.
    fn replace(&self, text: &str) -> (Option<String>, u64) {
        let (mut replaced, mut copied, mut count) = (String::new(), 0, 0);
        let mut from = 0;
        while let Some((start, end)) = self.find(text, from) {
            match self.validated_length(&text[start..], end - start) {
                // It is a replacement from an earlier pass.
                Some(length) if text[start..start + length] == self.replacement => {
                    from = start + length;
                }
                Some(length) => {
                    replaced.push_str(&text[copied..start]);
                    replaced.push_str(&self.replacement);
                    (copied, from) = (start + length, start + length);
                    count += 1;
                }
                // A valid match may begin within an invalid one.
                None => from = start + text[start..].chars().next().map_or(1, char::len_utf8),
            }
        }
        if count == 0 {
            return (None, 0);
        }
        replaced.push_str(&text[copied..]);
        (Some(replaced), count)
    }

    fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        if from > text.len() {
            return None;
        }
        if self.regex.captures_len() == 1 {
            return self.regex.find_at(text, from).map(|found| (found.start(), found.end()));
        }
        let captures = self.regex.captures_at(text, from)?;
        let found = captures.name(SECRET_GROUP).or_else(|| captures.get(0))?;
        Some((found.start(), found.end()))
    }

    /// The number of bytes to replace at the start of the text, which matches for `length` bytes.
    /// `None` if the match is not valid.
    fn validated_length(&self, text: &str, length: usize) -> Option<usize> {
        match self.validation {
            Validation::Shape => Some(length),
            Validation::Number(number) => number(text),
            Validation::Mixed => {
                let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().take(length).any(kind);
                (has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)).then_some(length)
            }
        }
    }
}

fn replacement(name: &str) -> String {
    format!("[redacted:{name}]")
}

/// The length of the shortest match, in bytes. 0 for an invalid pattern.
fn match_bytes_min(pattern: &str) -> usize {
    regex_syntax::parse(pattern)
        .ok()
        .and_then(|parsed| parsed.properties().minimum_len())
        .unwrap_or(0)
}
