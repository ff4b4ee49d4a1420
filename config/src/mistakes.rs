//! Collects the mistakes of one file.

use std::ops::Range;

use serde::de::DeserializeOwned;

use crate::{
    ConfigError, ConfigText, Mistake, Place, Spanned,
    found::Found,
    structure::{self, Entry, MISTAKES_MAX},
};

/// The mistakes of one file.
#[derive(Debug)]
pub struct Mistakes<'a> {
    text: &'a ConfigText,
    mistakes: Vec<(Range<usize>, Mistake)>,
    entries: Vec<Entry>,
}

impl<'a> Mistakes<'a> {
    /// No mistakes of this file yet.
    #[must_use]
    pub fn new(text: &'a ConfigText) -> Self {
        Self { text, mistakes: Vec::new(), entries: Vec::new() }
    }

    /// The file.
    #[must_use]
    pub fn text(&self) -> &'a ConfigText {
        self.text
    }

    /// Parses TOML as a type that rejects unknown fields. Reports all that does not fit the type,
    /// and leaves it out of the result. `None`: without it there is no such value.
    pub fn parse<T: DeserializeOwned>(&mut self) -> Option<T> {
        let parsed = structure::parse(self.text);
        self.take(parsed)
    }

    /// As [`Self::parse`], for JSON. Of syntax errors it reports the first.
    pub fn parse_json<T: DeserializeOwned>(&mut self) -> Option<T> {
        let parsed = structure::parse_json(self.text);
        self.take(parsed)
    }

    fn take<T>(
        &mut self,
        (parsed, entries, found): (Option<T>, Vec<Entry>, Vec<Found>),
    ) -> Option<T> {
        self.entries = entries;
        for Found { span, problem, help } in found {
            self.add(span, problem, help);
        }
        parsed
    }

    /// Reports a mistake at these bytes of the file.
    pub fn push(&mut self, span: Range<usize>, problem: impl Into<String>) {
        self.add(span, problem.into(), None);
    }

    /// Reports a mistake, with a help such as "did you mean `urls`?".
    pub fn push_with_help(
        &mut self,
        span: Range<usize>,
        problem: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(span, problem.into(), help);
    }

    /// Reports a mistake in the combination of several settings of a table, or something that the
    /// table lacks. It is ignored if another mistake in the same `[table]` or `[[table]]` has been
    /// reported, because it could be a consequence of that.
    pub fn push_combined(&mut self, span: Range<usize>, problem: impl Into<String>) {
        if !self.entry(span.start).is_some_and(|entry| entry.is_wrong) {
            self.mistakes.push((span.clone(), self.mistake(span, problem.into(), None)));
        }
    }

    /// Reports a mistake in a part of a string of the file.
    pub fn push_in(
        &mut self,
        value: &Spanned<String>,
        part: Range<usize>,
        problem: impl Into<String>,
    ) {
        let span = value.span();
        // Escapes can make the string differ from the file; then the mistake is at its start.
        let raw = self.text.as_str().get(span.clone());
        let start = raw.and_then(|raw| Some(span.start + raw.find(value.as_str())?));
        let part = match start {
            Some(start) if !value.is_empty() => start + part.start..start + part.end,
            _ => span.start..span.start,
        };
        self.push(part, problem);
    }

    /// Whether no mistake has been reported in the tables of this key of the top level. Only then a
    /// reference to one of them can be checked.
    #[must_use]
    pub fn is_complete(&self, key: &str) -> bool {
        !self.entries.iter().any(|entry| entry.key == key && entry.is_wrong)
    }

    /// Whether no mistake has been reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Returns `value` if there are no mistakes.
    ///
    /// # Errors
    /// The mistakes. `value` may be absent only if there are some.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) if self.mistakes.is_empty() => Ok(value),
            _ => {
                if self.mistakes.is_empty() {
                    self.push(0..0, "the file is invalid");
                }
                self.mistakes.sort_by_key(|(span, _)| span.start);
                self.mistakes.truncate(MISTAKES_MAX);
                let mistakes = self.mistakes.into_iter().map(|(_, mistake)| mistake).collect();
                Err(ConfigError::Invalid { path: self.text.path().to_owned(), mistakes })
            }
        }
    }

    fn add(&mut self, span: Range<usize>, problem: String, help: Option<String>) {
        let at = span.start;
        let within = |entry: &&mut Entry| entry.span.contains(&at);
        if let Some(entry) = self.entries.iter_mut().find(within) {
            entry.is_wrong = true;
        }
        self.mistakes.push((span.clone(), self.mistake(span, problem, help)));
    }

    fn mistake(&self, span: Range<usize>, problem: String, help: Option<String>) -> Mistake {
        let place = Place::new(self.text.as_str(), span);
        let place = if self.text.has_secrets() { place.without_text() } else { place };
        Mistake { place, problem, help }
    }

    fn entry(&self, at: usize) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.span.contains(&at))
    }
}

impl ConfigText {
    /// Parses TOML as a type that rejects unknown fields.
    ///
    /// # Errors
    /// When it is not valid TOML, or not of this type. The error has all mistakes.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut mistakes = Mistakes::new(self);
        let parsed = mistakes.parse();
        mistakes.finish(parsed)
    }

    /// Parses JSON.
    ///
    /// # Errors
    /// When it is not valid JSON, or not of this type. The error has the first mistake.
    pub fn parse_json<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut mistakes = Mistakes::new(self);
        let parsed = mistakes.parse_json();
        mistakes.finish(parsed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only parsed")]
    struct Lock {
        version: u32,
        #[serde(default)]
        tools: BTreeMap<String, u32>,
    }

    #[test]
    fn a_mistake_in_json_points_at_the_token_where_it_was_found() {
        let error = |text: &str| {
            ConfigText::new("catalog.lock", text).parse_json::<Lock>().unwrap_err().to_string()
        };
        let texts = [
            "{}",
            "",
            "{\n  \"version\": 1,\n  \"tool\": {}\n}",
            "{ \"version\": 1, \"tools\": { \"a\": true } }",
            "{ \"version\": 1, }",
        ];
        let errors: Vec<_> = texts.iter().map(|text| error(text)).collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        catalog.lock:1:1: missing field `version`
          |
        1 | {}
          | ^^
        catalog.lock:1:1: invalid JSON: EOF while parsing a value
          |
        1 |
          | ^
        catalog.lock:3:3: unknown field `tool`, expected `version` or `tools`
          |
        3 |   "tool": {}
          |   ^^^^^^
          = help: did you mean `tools`?
        catalog.lock:1:33: expected a whole number, found boolean `true`
          |
        1 | { "version": 1, "tools": { "a": true } }
          |                                 ^^^^
        catalog.lock:1:17: invalid JSON: trailing comma
          |
        1 | { "version": 1, }
          |                 ^
        "#);
    }

    #[test]
    fn a_brief_names_the_file_and_the_line_and_quotes_nothing() {
        let text = ConfigText::new("edge.toml", "version = 1\na = 1\nb = 2\n");
        let brief = text.parse::<Lock>().unwrap_err().brief();
        assert_eq!(brief, "edge.toml is invalid: see the log for 2 mistakes, the first in line 2");
    }
}
