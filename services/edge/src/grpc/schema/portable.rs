//! Reduces schemas to the keywords that every model API accepts, and describes the others in words.
//!
//! A model API rejects the whole list of tools for one unknown keyword. The table in
//! docs/reference/contract.md lists what each API rejects. Removed keywords are still checked.

use drawbridge_contract::dynamic::EXACT_INTEGER_MAX;
use serde_json::{Value, json};

use super::SchemaObject;

/// The longest description of one keyword, in characters.
const VALUE_CHARS_MAX: usize = 120;

/// Removes the keywords that not every model API accepts from the schema of a field, and returns
/// their descriptions, which continue "must be".
pub(super) fn reduce(schema: &mut SchemaObject) -> Vec<String> {
    let mut words = Vec::new();
    let is_integer = schema.get("type").is_some_and(|kind| kind == "integer");
    let keywords: Vec<_> = schema.keys().cloned().collect();
    for keyword in keywords {
        let Some(value) = schema.get_mut(&keyword) else { continue };
        match keyword.as_str() {
            "items" | "additionalProperties" => {
                let inner = value.as_object_mut().map(reduce).unwrap_or_default();
                let each = if keyword == "items" { "items" } else { "values" };
                words.extend(inner.into_iter().map(|word| format!("with {each} that are {word}")));
            }
            "minimum" | "maximum" | "minLength" | "maxLength" | "minItems" | "maxItems"
                if is_exact(value) => {}
            "type" | "$ref" | "properties" | "required" | "pattern" => {}
            "format" if value == "date-time" => {}
            "enum" if is_plain_enum(value) => {}
            "exclusiveMinimum" | "exclusiveMaximum"
                if is_integer && inclusive(&keyword, value).is_some() =>
            {
                if let Some((inclusive, bound)) = inclusive(&keyword, value) {
                    schema.shift_remove(&keyword);
                    schema.insert(inclusive.to_owned(), bound);
                }
            }
            _ => {
                words.extend(describe_keyword(&keyword, value));
                schema.shift_remove(&keyword);
            }
        }
    }
    words
}

/// Whether every JSON parser represents the bound exactly, and every model API accepts it.
fn is_exact(bound: &Value) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "the maximum is exact")]
    bound.as_f64().is_some_and(|bound| bound.abs() <= EXACT_INTEGER_MAX as f64)
}

/// Gemini accepts only non-empty strings.
fn is_plain_enum(values: &Value) -> bool {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    values.as_array().is_some_and(|values| values.iter().all(is_text))
}

/// The equivalent inclusive bound of an integer, whose keyword Gemini supports.
fn inclusive(keyword: &str, bound: &Value) -> Option<(&'static str, Value)> {
    let bound = bound.as_i64().filter(|bound| bound.unsigned_abs() < EXACT_INTEGER_MAX)?;
    Some(match keyword {
        "exclusiveMinimum" => ("minimum", json!(bound + 1)),
        _ => ("maximum", json!(bound - 1)),
    })
}

/// Describes a keyword. `None` where the description would not help a model, or would be too long.
fn describe_keyword(keyword: &str, value: &Value) -> Option<String> {
    let all = |schema: &Value| {
        let words: Vec<_> = schema
            .as_object()?
            .iter()
            .filter_map(|(keyword, value)| describe_keyword(keyword, value))
            .collect();
        Some(words.join(" and ")).filter(|words| !words.is_empty())
    };
    let each = |schemas: &Value, between: &str| {
        let words: Option<Vec<_>> = schemas.as_array()?.iter().map(all).collect();
        words.map(|words| words.join(between))
    };
    let text = value.to_string();
    let words = match keyword {
        "minimum" => format!("at least {text}"),
        "maximum" => format!("at most {text}"),
        "exclusiveMinimum" => format!("more than {text}"),
        "exclusiveMaximum" => format!("less than {text}"),
        "minLength" => format!("of at least {text} characters"),
        "maxLength" => format!("of at most {text} characters"),
        "minProperties" => format!("of at least {text} entries"),
        "maxProperties" => format!("of at most {text} entries"),
        "uniqueItems" => "without duplicates".to_owned(),
        "format" => describe_format(value.as_str()?),
        "pattern" => format!("of the pattern `{}`", value.as_str()?),
        "const" => format!("exactly {text}"),
        "enum" => {
            let values: Vec<_> = value.as_array()?.iter().map(ToString::to_string).collect();
            format!("one of {}", values.join(", "))
        }
        "not" => format!("not {}", all(value)?),
        "anyOf" => each(value, ", or ")?,
        "allOf" => each(value, " and ")?,
        "propertyNames" => format!("with keys that are {}", all(value)?),
        _ => return None,
    };
    Some(words).filter(|words| words.chars().count() <= VALUE_CHARS_MAX)
}

fn describe_format(format: &str) -> String {
    match format {
        "email" => "an email address".to_owned(),
        "hostname" => "a host name".to_owned(),
        "ipv4" => "an IPv4 address".to_owned(),
        "ipv6" => "an IPv6 address".to_owned(),
        "uri" => "a URI".to_owned(),
        "uri-reference" => "a URI or a relative reference".to_owned(),
        "uuid" => "a UUID".to_owned(),
        format => format!("of the format {format}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema: &Value, reduced: &Value, words: &[&str]) {
        let mut schema = schema.as_object().unwrap().clone();
        assert_eq!(reduce(&mut schema), words);
        assert_eq!(Value::Object(schema), *reduced);
    }

    #[test]
    fn a_bound_without_an_exact_double_is_described() {
        let small = json!({
            "type": "integer",
            "minimum": -9_007_199_254_740_991_i64, "maximum": 9_007_199_254_740_991_i64,
        });
        check(&small, &small, &[]);
        check(
            &json!({ "type": "integer", "minimum": i64::MIN, "maximum": u64::MAX }),
            &json!({ "type": "integer" }),
            &["at least -9223372036854775808", "at most 18446744073709551615"],
        );
        check(&json!({ "maximum": 1e300 }), &json!({}), &["at most 1e+300"]);
        check(
            &json!({ "minLength": u64::MAX }),
            &json!({}),
            &["of at least 18446744073709551615 characters"],
        );
    }

    #[test]
    fn an_exclusive_bound_of_an_integer_becomes_an_inclusive_one() {
        check(
            &json!({ "type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10 }),
            &json!({ "type": "integer", "minimum": 1, "maximum": 9 }),
            &[],
        );
        check(
            &json!({ "type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.9 }),
            &json!({ "type": "number" }),
            &["more than 0.1", "less than 0.9"],
        );
    }

    #[test]
    fn a_keyword_that_not_every_model_api_accepts_is_described() {
        let string = json!({ "type": "string" });
        for (keyword, value, words) in [
            ("format", json!("email"), "an email address"),
            ("const", json!("a"), r#"exactly "a""#),
            ("enum", json!(["", "a"]), r#"one of "", "a""#),
            ("not", json!({ "enum": ["a", "b"] }), r#"not one of "a", "b""#),
            ("not", json!({ "pattern": "o.e" }), "not of the pattern `o.e`"),
            (
                "anyOf",
                json!([{ "format": "ipv4" }, { "format": "ipv6" }]),
                "an IPv4 address, or an IPv6 address",
            ),
            ("anyOf", json!([{ "const": "" }, { "format": "uuid" }]), r#"exactly "", or a UUID"#),
            ("allOf", json!([{ "pattern": "^a" }]), "of the pattern `^a`"),
        ] {
            check(&json!({ "type": "string", keyword: value }), &string, &[words]);
        }
        check(
            &json!({
                "type": "array", "items": { "type": "string", "format": "uri" },
                "uniqueItems": true,
            }),
            &json!({ "type": "array", "items": { "type": "string" } }),
            &["with items that are a URI", "without duplicates"],
        );
        check(
            &json!({
                "type": "object", "additionalProperties": { "type": "integer" },
                "maxProperties": 2, "propertyNames": { "maxLength": 3 },
            }),
            &json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
            &["of at most 2 entries", "with keys that are of at most 3 characters"],
        );
        check(&json!({ "enum": vec!["".to_owned(); 99] }), &json!({}), &[]);
    }
}
