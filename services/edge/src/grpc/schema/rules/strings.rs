//! Rules for strings.

use prost_reflect::DynamicMessage;
use serde_json::{Value, json};

use super::{
    flag, get,
    keywords::{add, exact_values},
};
use crate::grpc::schema::SchemaObject;

/// Adds the keywords for `buf.validate.StringRules`.
pub(super) fn strings(schema: &mut SchemaObject, rules: &DynamicMessage) {
    exact_values(schema, rules);
    lengths(schema, rules);
    for pattern in patterns(rules) {
        add(schema, "pattern", json!(pattern));
    }
    if let Some(excluded) = text(rules, "not_contains").filter(|text| !text.is_empty()) {
        add(schema, "not", json!({ "pattern": escaped(&excluded) }));
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

/// The rules with an equivalent format in JSON Schema.
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

/// Lengths count characters in both. A limit in bytes becomes a wider one in characters, of one to
/// four bytes each; the service checks it exactly.
fn lengths(schema: &mut SchemaObject, rules: &DynamicMessage) {
    let length = |rule| get(rules, rule).and_then(|value| value.as_u64());
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
    let pattern = text(rules, "pattern").filter(|pattern| is_portable(pattern));
    let part = |rule| text(rules, rule).filter(|text| !text.is_empty()).map(|text| escaped(&text));
    let known =
        [("tuuid", TUUID), ("ulid", ULID)].into_iter().filter(|(rule, _)| flag(rules, rule));
    pattern
        .into_iter()
        .chain(part("prefix").map(|text| format!("^{text}")))
        .chain(part("suffix").map(|text| format!("{text}$")))
        .chain(part("contains"))
        .chain(known.map(|(_, pattern)| pattern.to_owned()))
        .collect()
}

const TUUID: &str = "^[0-9a-fA-F]{32}$";
const ULID: &str = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$";

/// Whether a pattern has the same meaning in RE2, which services use, and in ECMAScript, which JSON
/// Schema uses.
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
    get(rules, rule).and_then(|value| value.as_str().map(str::to_owned))
}
