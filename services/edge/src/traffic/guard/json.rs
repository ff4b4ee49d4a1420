//! Guards a text, or the strings of JSON one by one, so that JSON stays JSON.

use std::{borrow::Cow, collections::BTreeMap, io};

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// What stands in place of a text, given the name of the JSON field that holds it.
pub(super) trait Check {
    fn check<'t>(&mut self, field: Option<&str>, text: &'t str) -> Cow<'t, str>;
}

/// Guards a text that may be JSON. Numbers stay as they are, and so does all that stands between strings.
pub(super) fn guard_text(text: &mut String, check: &mut impl Check) {
    let guarded = if is_json(text) { guard_literals(text, check) } else { None };
    let guarded = match guarded {
        Some(guarded) => guarded,
        None => check.check(None, text),
    };
    if let Cow::Owned(guarded) = guarded {
        *text = guarded;
    }
}

/// Guards all strings of a value, and the names of its fields.
pub(super) fn guard_value(value: &mut Value, check: &mut impl Check) {
    guard_field(None, value, check);
}

fn guard_field(field: Option<&str>, value: &mut Value, check: &mut impl Check) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(guarded) = check.check(field, text) {
                *text = guarded;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| guard_field(None, value, check)),
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| guard_field(Some(name), value, check));
            guard_names(fields, check);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn guard_names(fields: &mut Map<String, Value>, check: &mut impl Check) {
    let mut names = BTreeMap::new();
    for (number, name) in fields.keys().enumerate() {
        if let Cow::Owned(name) = check.check(None, name) {
            names.insert(number, name);
        }
    }
    if names.is_empty() {
        return;
    }
    let mut guarded = Map::new();
    for (number, (name, value)) in std::mem::take(fields).into_iter().enumerate() {
        let name = names.remove(&number).unwrap_or(name);
        // No field is lost because two of them are now named alike.
        let mut free = name.clone();
        let mut number = 1;
        while guarded.contains_key(&free) {
            number += 1;
            free = format!("{name}#{number}");
        }
        guarded.insert(free, value);
    }
    *fields = guarded;
}

/// Whether a text is what `to_string` writes of a value.
pub(super) fn is_written(text: &str, value: &Value) -> bool {
    let mut rest = Rest(text.as_bytes());
    serde_json::to_writer(&mut rest, value).is_ok() && rest.0.is_empty()
}

/// How many bytes `to_string` writes of a value.
pub(super) fn length(value: &Value) -> usize {
    let mut length = Length(0);
    // Counting does not fail.
    let _ = serde_json::to_writer(&mut length, value);
    length.0
}

/// What is still expected to be written.
struct Rest<'a>(&'a [u8]);

impl io::Write for Rest<'_> {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(written).ok_or(io::ErrorKind::InvalidData)?;
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        self.0 += written.len();
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Guards the string literals of a text that is JSON. Nothing when one cannot be read after all.
fn guard_literals<'t>(text: &'t str, check: &mut impl Check) -> Option<Cow<'t, str>> {
    let mut guarded: Option<String> = None;
    let (mut copied, mut place) = (0, 0);
    let mut field: Option<Cow<'_, str>> = None;
    while let Some(start) = text[place..].find('"').map(|found| place + found) {
        // What is neither blank nor a colon between a name and a string is another value of the field.
        if !text[place..start].bytes().all(|byte| byte.is_ascii_whitespace() || byte == b':') {
            field = None;
        }
        place = start + literal_length(&text[start..])?;
        let literal = &text[start..place];
        let read: Cow<'_, str> = match literal.contains('\\') {
            false => Cow::Borrowed(&literal[1..literal.len() - 1]),
            true => Cow::Owned(serde_json::from_str(literal).ok()?),
        };
        let is_name = text[place..].trim_start().starts_with(':');
        let checked = check.check(field.take().as_deref().filter(|_| !is_name), &read);
        if let Cow::Owned(checked) = checked {
            let guarded = guarded.get_or_insert_default();
            guarded.push_str(&text[copied..start]);
            guarded.push_str(&serde_json::to_string(&checked).ok()?);
            copied = place;
        }
        if is_name {
            field = Some(read);
        }
    }
    Some(match guarded {
        None => Cow::Borrowed(text),
        Some(mut guarded) => {
            guarded.push_str(&text[copied..]);
            Cow::Owned(guarded)
        }
    })
}

/// How long the string literal is that a text begins with.
fn literal_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    let inner = text.get(1..)?.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some(inner + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Makes x out of every a, and of all that stands in a field `b`.
    struct Letters;

    impl Check for Letters {
        fn check<'t>(&mut self, field: Option<&str>, text: &'t str) -> Cow<'t, str> {
            match (field, text.contains(['a', '\u{1b}'])) {
                (Some("b"), _) => Cow::Owned("B".to_owned()),
                (_, true) => Cow::Owned(text.replace(['a', '\u{1b}'], "x")),
                _ => Cow::Borrowed(text),
            }
        }
    }

    #[track_caller]
    fn becomes(text: &str, guarded: &str) {
        let mut text = text.to_owned();
        guard_text(&mut text, &mut Letters);
        assert_eq!(text, guarded);
    }

    #[test]
    fn of_json_only_strings_change_and_nothing_around_them() {
        becomes(
            "{ \"a\" : 1e400,\n\t\"b\": \"secret\", \"c\": [\"a\\\"a\", \"b\"], \"a\": 12345678901234567890123 }",
            "{ \"x\" : 1e400,\n\t\"b\": \"B\", \"c\": [\"x\\\"x\", \"b\"], \"x\": 12345678901234567890123 }",
        );
        becomes("[\"\\u001b[1m\\u0061\\\\\"]", "[\"x[1mx\\\\\"]");
        becomes(
            "{\"b\": [\"n\"], \"c\": {\"b\": \"n\"}}",
            "{\"b\": [\"n\"], \"c\": {\"b\": \"B\"}}",
        );
    }

    #[test]
    fn what_is_no_json_is_a_text() {
        becomes("a \"b\": \"n\"", "x \"b\": \"n\"");
        becomes("{\"a\": \"a", "{\"x\": \"x");
        becomes("[link](a)", "[link](x)");
    }

    #[test]
    fn names_change_too_and_no_field_is_lost() {
        let mut value = json!({ "a": 1, "x": 2, "c": { "b": "n", "d": ["a", { "b": "n" }] } });
        guard_value(&mut value, &mut Letters);
        assert_eq!(value.to_string(), r##"{"x":1,"x#2":2,"c":{"b":"B","d":["x",{"b":"B"}]}}"##);
    }

    #[test]
    fn what_is_written_of_a_value_is_known_without_writing_it() {
        let value = json!({ "a": [1.5, "ü\n"], "b": null });
        let text = value.to_string();
        assert!(is_written(&text, &value) && length(&value) == text.len());
        assert!(!is_written(&format!("{text} "), &value) && !is_written(&text[1..], &value));
    }

    proptest! {
        #[test]
        fn a_value_and_its_text_are_guarded_alike(keys in prop::collection::vec("[ab\\PC]{0,3}", 0..4), text in "(\\PC|[\"\\\\a\n\u{1b}]){0,12}") {
            let mut value = json!({ "list": [text, 1] });
            for key in keys {
                // Names that would be made alike are numbered in a value alone.
                if !key.contains(['a', 'x', '\u{1b}']) {
                    value[key] = json!(text);
                }
            }
            let mut written = value.to_string();
            guard_text(&mut written, &mut Letters);
            guard_value(&mut value, &mut Letters);
            prop_assert_eq!(written, value.to_string());
        }
    }
}
