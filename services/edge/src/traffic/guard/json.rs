//! Filters a text, or each string of a JSON text, so that JSON remains valid.

use std::{borrow::Cow, collections::BTreeMap, io};

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// Filters texts. `field` is the name of the JSON field whose value the text is.
pub(super) trait TextFilter {
    fn filter<'t>(&mut self, field: Option<&str>, text: &'t str) -> Cow<'t, str>;
}

/// Filters a text that may be JSON. In JSON, everything except strings stays unchanged.
pub(super) fn guard_text(text: &mut String, filter: &mut impl TextFilter) {
    let guarded = if is_json(text) { guard_literals(text, filter) } else { None };
    let guarded = match guarded {
        Some(guarded) => guarded,
        None => filter.filter(None, text),
    };
    if let Cow::Owned(guarded) = guarded {
        *text = guarded;
    }
}

/// Filters all strings of a value and the names of its fields.
pub(super) fn guard_value(value: &mut Value, filter: &mut impl TextFilter) {
    guard_field(None, value, filter);
}

fn guard_field(field: Option<&str>, value: &mut Value, filter: &mut impl TextFilter) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(guarded) = filter.filter(field, text) {
                *text = guarded;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| guard_field(None, value, filter)),
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| guard_field(Some(name), value, filter));
            guard_names(fields, filter);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn guard_names(fields: &mut Map<String, Value>, filter: &mut impl TextFilter) {
    let mut names = BTreeMap::new();
    for (number, name) in fields.keys().enumerate() {
        if let Cow::Owned(name) = filter.filter(None, name) {
            names.insert(number, name);
        }
    }
    if names.is_empty() {
        return;
    }
    let mut guarded = Map::new();
    for (number, (name, value)) in std::mem::take(fields).into_iter().enumerate() {
        let name = names.remove(&number).unwrap_or(name);
        // Fields whose names have become equal are numbered.
        let mut unique = name.clone();
        let mut number = 1;
        while guarded.contains_key(&unique) {
            number += 1;
            unique = format!("{name}#{number}");
        }
        guarded.insert(unique, value);
    }
    *fields = guarded;
}

/// Whether a text equals the serialized value.
pub(super) fn is_serialized_as(text: &str, value: &Value) -> bool {
    let mut matcher = PrefixMatcher(text.as_bytes());
    serde_json::to_writer(&mut matcher, value).is_ok() && matcher.0.is_empty()
}

/// The length of the serialized value, in bytes.
pub(super) fn serialized_length(value: &Value) -> usize {
    let mut length = ByteCounter(0);
    // Counting cannot fail.
    let _ = serde_json::to_writer(&mut length, value);
    length.0
}

/// Fails unless the bytes written are the expected ones. Has the expected rest.
struct PrefixMatcher<'a>(&'a [u8]);

impl io::Write for PrefixMatcher<'_> {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(written).ok_or(io::ErrorKind::InvalidData)?;
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct ByteCounter(usize);

impl io::Write for ByteCounter {
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

/// Filters the string literals of a JSON text. `None` if one cannot be parsed.
fn guard_literals<'t>(text: &'t str, filter: &mut impl TextFilter) -> Option<Cow<'t, str>> {
    let mut guarded: Option<String> = None;
    let (mut copied, mut place) = (0, 0);
    let mut field: Option<Cow<'_, str>> = None;
    while let Some(start) = text[place..].find('"').map(|found| place + found) {
        // Anything but white space and a colon after a name means that the value is not this
        // string.
        if !text[place..start].bytes().all(|byte| byte.is_ascii_whitespace() || byte == b':') {
            field = None;
        }
        place = start + literal_length(&text[start..])?;
        let literal = &text[start..place];
        let parsed: Cow<'_, str> = match literal.contains('\\') {
            false => Cow::Borrowed(&literal[1..literal.len() - 1]),
            true => Cow::Owned(serde_json::from_str(literal).ok()?),
        };
        let is_name = text[place..].trim_start().starts_with(':');
        let filtered = filter.filter(field.take().as_deref().filter(|_| !is_name), &parsed);
        if let Cow::Owned(filtered) = filtered {
            let guarded = guarded.get_or_insert_default();
            guarded.push_str(&text[copied..start]);
            guarded.push_str(&serde_json::to_string(&filtered).ok()?);
            copied = place;
        }
        if is_name {
            field = Some(parsed);
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

/// The length of the string literal at the start of a text.
fn literal_length(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    let inner = text.get(1..)?.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    Some(inner + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Replaces every `a` and escape character with `x`, and values of the field `b` with `B`.
    struct TestFilter;

    impl TextFilter for TestFilter {
        fn filter<'t>(&mut self, field: Option<&str>, text: &'t str) -> Cow<'t, str> {
            match (field, text.contains(['a', '\u{1b}'])) {
                (Some("b"), _) => Cow::Owned("B".to_owned()),
                (_, true) => Cow::Owned(text.replace(['a', '\u{1b}'], "x")),
                _ => Cow::Borrowed(text),
            }
        }
    }

    #[track_caller]
    fn check(text: &str, guarded: &str) {
        let mut text = text.to_owned();
        guard_text(&mut text, &mut TestFilter);
        assert_eq!(text, guarded);
    }

    #[test]
    fn in_json_only_strings_change() {
        check(
            "{ \"a\" : 1e400,\n\t\"b\": \"secret\", \"c\": [\"a\\\"a\", \"b\"], \
             \"a\": 12345678901234567890123 }",
            "{ \"x\" : 1e400,\n\t\"b\": \"B\", \"c\": [\"x\\\"x\", \"b\"], \
             \"x\": 12345678901234567890123 }",
        );
        check("[\"\\u001b[1m\\u0061\\\\\"]", "[\"x[1mx\\\\\"]");
        check("{\"b\": [\"n\"], \"c\": {\"b\": \"n\"}}", "{\"b\": [\"n\"], \"c\": {\"b\": \"B\"}}");
    }

    #[test]
    fn invalid_json_is_filtered_as_text() {
        check("a \"b\": \"n\"", "x \"b\": \"n\"");
        check("{\"a\": \"a", "{\"x\": \"x");
        check("[link](a)", "[link](x)");
    }

    #[test]
    fn field_names_change_and_no_field_is_lost() {
        let mut value = json!({ "a": 1, "x": 2, "c": { "b": "n", "d": ["a", { "b": "n" }] } });
        guard_value(&mut value, &mut TestFilter);
        assert_eq!(value.to_string(), r##"{"x":1,"x#2":2,"c":{"b":"B","d":["x",{"b":"B"}]}}"##);
    }

    #[test]
    fn a_serialized_value_is_compared_and_measured_without_allocation() {
        let value = json!({ "a": [1.5, "ü\n"], "b": null });
        let text = value.to_string();
        assert!(is_serialized_as(&text, &value) && serialized_length(&value) == text.len());
        assert!(
            !is_serialized_as(&format!("{text} "), &value) && !is_serialized_as(&text[1..], &value)
        );
    }

    proptest! {
        #[test]
        fn a_value_and_its_text_are_filtered_equally(
            keys in prop::collection::vec("[ab\\PC]{0,3}", 0..4),
            text in "(\\PC|[\"\\\\a\n\u{1b}]){0,12}",
        ) {
            let mut value = json!({ "list": [text, 1] });
            for key in keys {
                // Names that become equal are numbered only in a value.
                if !key.contains(['a', 'x', '\u{1b}']) {
                    value[key] = json!(text);
                }
            }
            let mut text_of_value = value.to_string();
            guard_text(&mut text_of_value, &mut TestFilter);
            guard_value(&mut value, &mut TestFilter);
            prop_assert_eq!(text_of_value, value.to_string());
        }
    }
}
