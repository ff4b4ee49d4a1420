//! The schema rules of each model API. One schema that breaks a rule makes the API reject the
//! client's whole tool list.

use serde_json::{Map, Value};

/// The model APIs, as docs/reference/contract.md names them.
pub(super) const APIS: [&str; 5] =
    ["OpenAI", "OpenAI, strict", "Anthropic", "Gemini", "VS Code and older clients"];

/// 2^53 − 1, the largest integer that a double represents exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// A schema within a tool's schema.
struct Schema<'a> {
    path: String,
    keywords: &'a Map<String, Value>,
    /// Its nesting depth in objects.
    level: usize,
}

/// The rules that a tool violates, each with the schema's path and the API.
pub(super) fn broken_rules(tool: &Value) -> Vec<String> {
    let name = tool["name"].as_str().expect("a name");
    let mut broken = Vec::new();
    let mut note =
        |api: &str, path: &str, what: &str| broken.push(format!("{name}{path} ({api}): {what}"));
    if !is_word(name, "_-") {
        note("OpenAI", "", "the name is not ^[a-zA-Z0-9_-]{1,64}$");
    }
    if tool["description"].as_str().is_some_and(|text| text.chars().count() > 1024) {
        note("OpenAI", "", "the description has more than 1024 characters");
    }
    let input = tool["inputSchema"].as_object().expect("a schema");
    if input.get("type") != Some(&Value::from("object")) || !input.contains_key("properties") {
        note("OpenAI", "", "the schema is not an object with properties");
    }
    for keyword in ["oneOf", "anyOf", "allOf", "not", "enum", "const"] {
        if input.contains_key(keyword) {
            note("OpenAI", "", &format!("{keyword} at the top level"));
            note("Anthropic", "", &format!("{keyword} at the top"));
        }
    }
    let mut schemas = Vec::new();
    collect(input, String::new(), 1, &mut schemas);
    for schema in &schemas {
        for (api, rule) in
            APIS.iter().zip([openai, openai_strict, anthropic, gemini, older_clients])
        {
            rule(schema, &mut |what| note(api, &schema.path, &what));
        }
    }
    let values = |keyword: &str| {
        let found = schemas.iter().filter_map(|schema| schema.keywords.get(keyword));
        found
            .map(|value| {
                value.as_object().map(Map::len).or(value.as_array().map(Vec::len)).unwrap_or(0)
            })
            .sum::<usize>()
    };
    if values("properties") > 5000 || values("enum") > 1000 {
        note("OpenAI, strict", "", "more than 5000 properties or 1000 values of enums");
    }
    // Output schemas do not reach model APIs, but clients compile them.
    if let Some(output) = tool["outputSchema"].as_object() {
        let mut schemas = Vec::new();
        collect(output, "→".to_owned(), 1, &mut schemas);
        for schema in &schemas {
            older_clients(schema, &mut |what| {
                note("VS Code and older clients", &schema.path, &what);
            });
            bounds(schema, &mut |what| note("OpenAI", &schema.path, &what));
        }
    }
    broken
}

fn collect<'a>(
    keywords: &'a Map<String, Value>,
    path: String,
    level: usize,
    found: &mut Vec<Schema<'a>>,
) {
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("properties" | "$defs", Value::Object(inner)) => {
                for (name, schema) in inner {
                    if let Value::Object(schema) = schema {
                        collect(schema, format!("{path}.{name}"), level + 1, found);
                    }
                }
            }
            ("items" | "additionalProperties" | "not" | "propertyNames", Value::Object(schema)) => {
                collect(schema, format!("{path}.{keyword}"), level, found);
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(schemas)) => {
                for schema in schemas.iter().filter_map(Value::as_object) {
                    collect(schema, format!("{path}.{keyword}"), level, found);
                }
            }
            _ => {}
        }
    }
    found.push(Schema { path, keywords, level });
}

fn openai(schema: &Schema<'_>, broken: &mut dyn FnMut(String)) {
    bounds(schema, broken);
    let keywords = schema.keywords;
    if keywords.get("type") == Some(&Value::from("array")) && !keywords.contains_key("items") {
        broken("an array without items".to_owned());
    }
    names(schema, broken);
}

/// OpenAI's strict functions. Clients build them from these schemas by requiring every field.
fn openai_strict(schema: &Schema<'_>, broken: &mut dyn FnMut(String)) {
    const REFUSED: [&str; 17] = [
        "allOf",
        "not",
        "oneOf",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
        "unevaluatedItems",
        "contains",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "contentEncoding",
    ];
    let keywords = schema.keywords;
    REFUSED
        .iter()
        .filter(|keyword| keywords.contains_key(**keyword))
        .for_each(|keyword| broken((*keyword).to_owned()));
    if keywords.contains_key("properties")
        && keywords.get("additionalProperties") != Some(&Value::Bool(false))
    {
        broken("an object that is not closed".to_owned());
    }
    if keywords.contains_key("$ref") && keywords.len() > 1 {
        broken("siblings of $ref".to_owned());
    }
    if schema.level > 10 {
        broken("more than 10 levels".to_owned());
    }
}

fn anthropic(schema: &Schema<'_>, broken: &mut dyn FnMut(String)) {
    names(schema, broken);
    if schema.keywords.contains_key("$ref") {
        broken("$ref".to_owned());
    }
}

fn gemini(schema: &Schema<'_>, broken: &mut dyn FnMut(String)) {
    // Clients remove or resolve the last three. SEP-2243 requires `x-mcp-header`.
    const KNOWN: [&str; 25] = [
        "type",
        "format",
        "title",
        "description",
        "enum",
        "items",
        "minItems",
        "maxItems",
        "properties",
        "required",
        "minProperties",
        "maxProperties",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "anyOf",
        "default",
        "example",
        "nullable",
        "propertyOrdering",
        "additionalProperties",
        "$schema",
        "x-mcp-header",
    ];
    let keywords = schema.keywords;
    keywords
        .keys()
        .filter(|keyword| !KNOWN.contains(&keyword.as_str()))
        .for_each(|keyword| broken(keyword.clone()));
    let has_type =
        keywords.get("type").is_some_and(Value::is_string) || keywords.contains_key("anyOf");
    if !has_type {
        broken("no type or several types".to_owned());
    }
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if keywords
        .get("enum")
        .and_then(Value::as_array)
        .is_some_and(|values| !values.iter().all(is_text))
    {
        broken("an enum value that is not a string".to_owned());
    }
    if keywords.get("format").is_some_and(|format| format != "date-time") {
        broken("a format other than date-time".to_owned());
    }
    let (properties, required) = (keywords.get("properties"), keywords.get("required"));
    let unknown = |name: &Value| properties.and_then(|known| known.get(name.as_str()?)).is_none();
    if required.and_then(Value::as_array).is_some_and(|names| names.iter().any(unknown)) {
        broken("a required property is not defined".to_owned());
    }
}

fn older_clients(schema: &Schema<'_>, broken: &mut dyn FnMut(String)) {
    const NEWER: [&str; 7] = [
        "$dynamicRef",
        "$dynamicAnchor",
        "prefixItems",
        "unevaluatedProperties",
        "unevaluatedItems",
        "dependentSchemas",
        "contentEncoding",
    ];
    let keywords = schema.keywords;
    NEWER
        .iter()
        .filter(|keyword| keywords.contains_key(**keyword))
        .for_each(|keyword| broken((*keyword).to_owned()));
    if keywords.get("type").is_some_and(Value::is_array) {
        broken("several types".to_owned());
    }
}

fn bounds(schema: &Schema<'_>, broken: &mut dyn FnMut(String)) {
    for (keyword, value) in schema.keywords {
        if value.as_f64().is_some_and(|bound| bound.abs() > EXACT_MAX) {
            broken(format!("{keyword} is beyond 2^53 − 1"));
        }
    }
}

fn names(schema: &Schema<'_>, broken: &mut dyn FnMut(String)) {
    for name in
        schema.keywords.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys)
    {
        if !is_word(name, "_.-") {
            broken(format!("the name {name}"));
        }
    }
}

fn is_word(name: &str, others: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || others.contains(letter))
}
