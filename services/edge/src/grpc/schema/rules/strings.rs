//! Rules for strings.

use prost_reflect::DynamicMessage;
use serde_json::{Value, json};

use super::{
    flag, set,
    values::{add, same},
};
use crate::grpc::schema::Object;

/// Adds the keywords that say what `buf.validate.StringRules` say.
pub(super) fn strings(schema: &mut Object, rules: &DynamicMessage) {
    same(schema, rules);
    lengths(schema, rules);
    for pattern in patterns(rules) {
        add(schema, "pattern", json!(pattern));
    }
    if let Some(refused) = text(rules, "not_contains").filter(|text| !text.is_empty()) {
        add(schema, "not", json!({ "pattern": escaped(&refused) }));
    }
    for (rule, formats) in FORMATS {
        if !flag(rules, rule) {
            continue;
        }
        match formats {
            [format] => add(schema, "format", json!(format)),
            formats => {
                let formats: Vec<_> =
                    formats.iter().map(|format| json!({ "format": format })).collect();
                add(schema, "anyOf", Value::Array(formats));
            }
        }
    }
}

/// The kinds of text that JSON Schema has a name for.
const FORMATS: [(&str, &[&str]); 9] = [
    ("email", &["email"]),
    ("hostname", &["hostname"]),
    ("ip", &["ipv4", "ipv6"]),
    ("ipv4", &["ipv4"]),
    ("ipv6", &["ipv6"]),
    ("uri", &["uri"]),
    ("uri_ref", &["uri-reference"]),
    ("address", &["hostname", "ipv4", "ipv6"]),
    ("uuid", &["uuid"]),
];

/// Lengths are of characters in both worlds. A text has no more characters than bytes, and no fewer than a
/// quarter of them: the service counts bytes exactly.
fn lengths(schema: &mut Object, rules: &DynamicMessage) {
    let length = |rule| set(rules, rule).and_then(|value| value.as_u64());
    for (rule, keyword, divisor) in [
        ("len", "minLength", 1),
        ("min_len", "minLength", 1),
        ("len_bytes", "minLength", 4),
        ("min_bytes", "minLength", 4),
        ("len", "maxLength", 1),
        ("max_len", "maxLength", 1),
        ("len_bytes", "maxLength", 1),
        ("max_bytes", "maxLength", 1),
    ] {
        if let Some(length) = length(rule) {
            add(schema, keyword, json!(length.div_ceil(divisor)));
        }
    }
}

fn patterns(rules: &DynamicMessage) -> Vec<String> {
    let given = text(rules, "pattern").filter(|pattern| is_portable(pattern));
    let part = |rule| text(rules, rule).filter(|text| !text.is_empty()).map(|text| escaped(&text));
    let known =
        [("tuuid", TUUID), ("ulid", ULID)].into_iter().filter(|(rule, _)| flag(rules, rule));
    given
        .into_iter()
        .chain(part("prefix").map(|text| format!("^{text}")))
        .chain(part("suffix").map(|text| format!("{text}$")))
        .chain(part("contains"))
        .chain(known.map(|(_, pattern)| pattern.to_owned()))
        .collect()
}

const TUUID: &str = "^[0-9a-fA-F]{32}$";
const ULID: &str = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$";

/// Whether a pattern means the same in RE2, which services use, and in ECMAScript, which JSON Schema does.
pub(super) fn is_portable(pattern: &str) -> bool {
    let mut rest = pattern.chars();
    while let Some(letter) = rest.next() {
        let after = rest.as_str();
        match letter {
            '\\' if after.starts_with(|next: char| {
                next.is_alphanumeric() && !"dDwWbBnrtfvx".contains(next)
            }) =>
            {
                return false;
            }
            '\\' => drop(rest.next()),
            // Flags and named groups.
            '(' if after.starts_with('?') && !after.starts_with("?:") => return false,
            '[' if after.starts_with("[:") => return false,
            _ => {}
        }
    }
    jsonschema::draft202012::new(&json!({ "pattern": pattern })).is_ok()
}

fn escaped(text: &str) -> String {
    let mut pattern = String::new();
    for letter in text.chars() {
        if r"^$\.*+?()[]{}|/".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

fn text(rules: &DynamicMessage, rule: &str) -> Option<String> {
    set(rules, rule).and_then(|value| value.as_str().map(str::to_owned))
}
