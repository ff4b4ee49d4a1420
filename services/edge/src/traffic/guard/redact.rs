//! Replaces secrets and personal data in a text.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder, RegexSet};

use self::patterns::{BUILT_IN, Proof, names_secret};

pub(super) use self::patterns::Class;

mod numbers;
mod patterns;
#[cfg(test)]
mod tests;

/// What a compiled pattern of an operator may weigh, in bytes.
const OWN_BYTES_MAX: usize = 256 * 1024;
/// How often a text is looked through. The last time nothing is found any more.
const PASSES_MAX: usize = 4;
/// What is found of a field's name.
const FIELD: &str = "field";
/// The group of a pattern that is replaced, where it is not the whole match.
const SECRET: &str = "secret";

/// Looks for some patterns.
#[derive(Debug)]
pub(super) struct Redactor {
    /// All patterns at once: most texts hold none.
    set: RegexSet,
    patterns: Vec<Pattern>,
    /// No match is shorter.
    shortest: usize,
    /// Whether fields are known by their names.
    fields: bool,
}

#[derive(Debug)]
struct Pattern {
    name: String,
    regex: Regex,
    replacement: String,
    proof: Proof,
}

/// An operator's own pattern.
#[derive(Debug)]
pub(super) struct Own<'a> {
    pub(super) name: &'a str,
    pub(super) pattern: &'a str,
    pub(super) replacement: Option<&'a str>,
}

/// Why a pattern cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatternError {
    #[error("{0}")]
    Pattern(#[from] regex::Error),
    #[error("it matches where nothing stands")]
    Empty,
    #[error("what replaces it would be replaced again: {0:?}")]
    Replacement(String),
}

impl Redactor {
    /// Looks for an operator's own patterns, and then for those of some classes. The error comes with the number of the
    /// own pattern that is wrong.
    pub(super) fn new(classes: &[Class], own: &[Own<'_>]) -> Result<Self, (usize, PatternError)> {
        let mut patterns = Vec::new();
        for (number, own) in own.iter().enumerate() {
            patterns.push(Pattern::own(own).map_err(|error| (number, error))?);
        }
        for found in BUILT_IN.iter().filter(|found| classes.contains(&found.class)) {
            let regex = Regex::new(found.pattern).map_err(|error| (0, error.into()))?;
            let (name, replacement) = (found.name.to_owned(), replacement(found.name));
            patterns.push(Pattern { name, regex, replacement, proof: found.proof });
        }
        let set = RegexSet::new(patterns.iter().map(|pattern| pattern.regex.as_str()));
        let set = set.map_err(|error| (own.len().saturating_sub(1), error.into()))?;
        let shortest = patterns
            .iter()
            .map(|pattern| shortest(pattern.regex.as_str()))
            .min()
            .unwrap_or(usize::MAX);
        let redactor = Self { set, patterns, shortest, fields: classes.contains(&Class::Secrets) };
        for (number, pattern) in redactor.patterns.iter().enumerate() {
            if let Cow::Owned(_) = redactor.redact(&pattern.replacement, &mut |_, _| {}) {
                return Err((number, PatternError::Replacement(pattern.replacement.clone())));
            }
        }
        Ok(redactor)
    }

    /// The text without what is looked for. `found` hears what, and how often.
    pub(super) fn redact<'t>(
        &self,
        text: &'t str,
        found: &mut impl FnMut(&str, u64),
    ) -> Cow<'t, str> {
        if text.len() < self.shortest || !self.set.is_match(text) {
            return Cow::Borrowed(text);
        }
        let mut redacted = Cow::Borrowed(text);
        // What is replaced may leave a number standing alone beside it that was part of a word.
        for _ in 0..PASSES_MAX {
            let mut settled = true;
            for number in self.set.matches(&redacted) {
                let Some(pattern) = self.patterns.get(number) else { continue };
                let (next, count) = pattern.replace(&redacted);
                if let Some(next) = next {
                    found(&pattern.name, count);
                    redacted = Cow::Owned(next);
                    settled = false;
                }
            }
            if settled {
                break;
            }
        }
        redacted
    }

    /// The same for a text that may be the value of a field.
    pub(super) fn redact_field<'t>(
        &self,
        name: Option<&str>,
        text: &'t str,
        found: &mut impl FnMut(&str, u64),
    ) -> Cow<'t, str> {
        if self.fields && !text.is_empty() && name.is_some_and(names_secret) {
            found(FIELD, 1);
            return Cow::Owned(replacement(FIELD));
        }
        self.redact(text, found)
    }
}

impl Pattern {
    fn own(own: &Own<'_>) -> Result<Self, PatternError> {
        let regex = RegexBuilder::new(own.pattern).size_limit(OWN_BYTES_MAX).build()?;
        if shortest(own.pattern) == 0 {
            return Err(PatternError::Empty);
        }
        let replacement = own.replacement.map_or_else(|| replacement(own.name), ToOwned::to_owned);
        Ok(Self { name: own.name.to_owned(), regex, replacement, proof: Proof::Shape })
    }

    /// The text with each match replaced, and how many there are. Nothing without one.
    fn replace(&self, text: &str) -> (Option<String>, u64) {
        let (mut replaced, mut copied, mut count) = (String::new(), 0, 0);
        let mut from = 0;
        while let Some((start, end)) = self.find(text, from) {
            match self.proven(&text[start..], end - start) {
                // It has been here before.
                Some(length) if text[start..start + length] == self.replacement => {
                    from = start + length
                }
                Some(length) => {
                    replaced.push_str(&text[copied..start]);
                    replaced.push_str(&self.replacement);
                    (copied, from) = (start + length, start + length);
                    count += 1;
                }
                // What looks like it may begin within what only looked like it.
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
        let found = captures.name(SECRET).or_else(|| captures.get(0))?;
        Some((found.start(), found.end()))
    }

    /// How much is to be replaced of what begins here and matches for `length` bytes.
    fn proven(&self, text: &str, length: usize) -> Option<usize> {
        match self.proof {
            Proof::Shape => Some(length),
            Proof::Number(number) => number(text),
            Proof::Mixed => {
                let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().take(length).any(kind);
                (has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)).then_some(length)
            }
        }
    }
}

fn replacement(name: &str) -> String {
    format!("[redacted:{name}]")
}

/// How many bytes a match has at least. 0 for a pattern that is none.
fn shortest(pattern: &str) -> usize {
    regex_syntax::parse(pattern)
        .ok()
        .and_then(|parsed| parsed.properties().minimum_len())
        .unwrap_or(0)
}
