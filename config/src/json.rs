//! JSON as the tree that TOML is parsed to, with the places of its keys and values.

use std::{collections::HashSet, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::found::Found;

/// Parses JSON. Adds to `found` what is wrong, and leaves it out. `None`: it is no JSON.
///
/// A member with the value `null` is left out: it is absent.
pub(crate) fn parse<'a>(text: &'a str, found: &mut Vec<Found>) -> Option<Spanned<DeValue<'a>>> {
    // This limits the depth.
    let parsed = serde_json::from_str::<serde_json::Value>(text);
    match parsed.and_then(|_| serde_json::from_str(text)) {
        Ok(raw) => Tree { text, found }.value(raw),
        Err(error) => {
            found.push(syntax_error(text, &error));
            None
        }
    }
}

fn syntax_error(text: &str, error: &serde_json::Error) -> Found {
    let message = error.to_string();
    // The place is part of the mistake.
    let problem = message.rsplit_once(" at line ").map_or(&*message, |(problem, _)| problem);
    let lines = text.split_inclusive('\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(str::len).sum();
    let end = (before + error.column()).min(text.len());
    Found { span: last_token(text, end), problem: format!("invalid JSON: {problem}"), help: None }
}

/// The token of JSON that ends here, where an error was found.
fn last_token(text: &str, end: usize) -> Range<usize> {
    let before = &text[..text.floor_char_boundary(end)];
    let start = match before.strip_suffix('"') {
        Some(open) => open.rfind('"'),
        None => {
            let part = |character: char| character.is_alphanumeric() || "+-.".contains(character);
            let token = before.trim_end_matches(part).len();
            Some(token.min(before.len().saturating_sub(1)))
        }
    };
    text.floor_char_boundary(start.unwrap_or_default())..before.len()
}

struct Tree<'a, 'b> {
    text: &'a str,
    found: &'b mut Vec<Found>,
}

impl<'a> Tree<'a, '_> {
    fn value(&mut self, raw: &'a RawValue) -> Option<Spanned<DeValue<'a>>> {
        let json = raw.get();
        let value = match json.as_bytes().first()? {
            b'{' => self.object(serde_json::from_str(json).ok()?),
            b'[' => self.array(serde_json::from_str(json).ok()?),
            b'"' => DeValue::String(serde_json::from_str::<String>(json).ok()?.into()),
            b't' | b'f' => DeValue::Boolean(json == "true"),
            b'n' => return None,
            // A number of JSON is one of TOML.
            _ => DeValue::parse(json).ok()?.into_inner(),
        };
        Some(Spanned::new(self.span(raw), value))
    }

    fn object(&mut self, Members(members): Members<'a>) -> DeValue<'a> {
        let (mut table, mut names) = (DeTable::new(), HashSet::new());
        for (key, value) in members {
            let Ok(name) = serde_json::from_str::<String>(key.get()) else { continue };
            if !names.insert(name.clone()) {
                self.push(key, "duplicate key");
            } else if let Some(value) = self.value(value) {
                table.insert(Spanned::new(self.span(key), name.into()), value);
            }
        }
        DeValue::Table(table)
    }

    fn array(&mut self, items: Vec<&'a RawValue>) -> DeValue<'a> {
        let mut array = DeArray::new();
        for item in items {
            match self.value(item) {
                Some(value) => array.push(value),
                None => self.push(item, "expected a value, found null"),
            }
        }
        DeValue::Array(array)
    }

    fn push(&mut self, raw: &RawValue, problem: &str) {
        let span = self.span(raw);
        self.found.push(Found { span, problem: problem.to_owned(), help: None });
    }

    fn span(&self, raw: &RawValue) -> Range<usize> {
        // INVARIANT: a raw value parsed from this text is a slice of it.
        let start = raw.get().as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + raw.get().len()
    }
}

/// The members of an object, in their order.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::ConfigText;

    fn parse(text: &str) -> Result<Value, String> {
        ConfigText::new("a.json", text).parse_json().map_err(|error| error.to_string())
    }

    #[test]
    fn json_is_read_as_it_is_written_and_a_member_that_is_null_is_absent() {
        let text = r#"{ "a": [1, -2.5, 1e3, true, "\u00e9\n"], "b": { "c": null } }"#;
        let expected = json!({ "a": [1, -2.5, 1e3, true, "é\n"], "b": {} });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse(&u64::MAX.to_string()).unwrap(), json!(u64::MAX));
    }

    #[test]
    fn deeply_nested_json_is_rejected() {
        let text = "[".repeat(10_000) + &"]".repeat(10_000);
        let error = parse(&text).unwrap_err();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }
}
