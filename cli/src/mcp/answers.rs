//! Answers to the questions of a tool (`elicitation/create`): from options, or from the terminal.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, IsTerminal as _, Write as _},
};

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value, json};

use super::failure::Failure;

const ACTIONS: [&str; 3] = ["accept", "decline", "cancel"];

/// How questions are answered.
pub(super) struct Answers {
    given: BTreeMap<String, String>,
    has_terminal: bool,
}

/// Parses `NAME=VALUE`.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE"),
    }
}

impl Answers {
    /// These answers; other questions are asked at the terminal, if there is one.
    pub(super) fn new(given: Vec<(String, String)>) -> Self {
        let has_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        Self { given: given.into_iter().collect(), has_terminal }
    }

    /// No question can be answered.
    pub(super) fn none() -> Self {
        Self { given: BTreeMap::new(), has_terminal: false }
    }

    /// The questions that this client can answer.
    pub(super) fn capabilities(&self) -> Value {
        if self.has_terminal || !self.given.is_empty() {
            json!({ "elicitation": { "form": {}, "url": {} } })
        } else {
            json!({})
        }
    }

    /// The responses to requests, by their keys.
    pub(super) fn respond(&self, requests: &Value) -> Result<Value, Failure> {
        let mut responses = Map::new();
        for (key, request) in requests.as_object().into_iter().flatten() {
            let method = request["method"].as_str().unwrap_or_default();
            if method != "elicitation/create" {
                return Err(anyhow!("the tool asks for {method}, which is not supported").into());
            }
            responses.insert(key.clone(), self.answer(key, &request["params"])?);
        }
        Ok(Value::Object(responses))
    }

    fn answer(&self, key: &str, asked: &Value) -> Result<Value, Failure> {
        let message = asked["message"].as_str().unwrap_or_default();
        let action = self.given.get(key).filter(|action| ACTIONS.contains(&action.as_str()));
        if let Some(action) = action.filter(|action| *action != "accept") {
            return Ok(json!({ "action": action }));
        }
        if asked["mode"] == "url" {
            let url = asked["url"].as_str().unwrap_or_default();
            anstream::eprintln!("{message}\n  {url}");
            return self.consent(key, action, "Will you open this page?", json!(null));
        }
        let schema = &asked["requestedSchema"];
        let properties = schema["properties"].as_object();
        let is_asked = self.has_terminal && action.is_none();
        let mut content = Map::new();
        if is_asked {
            anstream::eprintln!("{message}");
        }
        for (name, property) in properties.into_iter().flatten() {
            let is_required =
                schema["required"].as_array().is_some_and(|names| names.contains(&json!(name)));
            if let Some(value) = self.value(name, property, is_required, message)? {
                content.insert(name.clone(), value);
            }
        }
        // Who gave a value for each property has accepted.
        let is_answered =
            !content.is_empty() && content.keys().all(|name| self.given.contains_key(name));
        if is_answered {
            return Ok(json!({ "action": "accept", "content": content }));
        }
        self.consent(key, action, if is_asked { "Accept?" } else { message }, json!(content))
    }

    /// The action of the option, or of the terminal.
    fn consent(
        &self,
        key: &str,
        action: Option<&String>,
        question: &str,
        content: Value,
    ) -> Result<Value, Failure> {
        let accepted = || match &content {
            Value::Null => json!({ "action": "accept" }),
            content => json!({ "action": "accept", "content": content }),
        };
        if action.is_some() {
            return Ok(accepted());
        }
        if !self.has_terminal {
            return Err(Failure::usage(format!(
                "the tool asks: {question} Answer with --answer {key}=accept, or decline or cancel"
            )));
        }
        match &*prompt(&format!("{question} [y]es, [n]o, [c]ancel: "))?.to_lowercase() {
            "y" | "yes" => Ok(accepted()),
            "c" | "cancel" => Ok(json!({ "action": "cancel" })),
            _ => Ok(json!({ "action": "decline" })),
        }
    }

    /// The value of a property: of the option, of the terminal, or its default. `None`: it is left
    /// out.
    fn value(
        &self,
        name: &str,
        property: &Value,
        is_required: bool,
        message: &str,
    ) -> Result<Option<Value>, Failure> {
        let default = property.get("default").cloned();
        if let Some(text) = self.given.get(name) {
            return match parse_value(property, text) {
                Ok(value) => Ok(Some(value)),
                Err(expected) => {
                    Err(Failure::usage(format!("--answer {name}={text}: {expected} is expected")))
                }
            };
        }
        if !self.has_terminal {
            return match default {
                None if is_required => Err(Failure::usage(format!(
                    "the tool asks: {message} Answer with --answer {name}=…"
                ))),
                default => Ok(default),
            };
        }
        let title = property["title"].as_str().unwrap_or(name);
        let description = property["description"].as_str();
        let mut label = description.map_or(title.to_owned(), |it| format!("{title} ({it})"));
        if let Some(choices) = choices(property) {
            label = format!("{label} {}", choices.join("|"));
        }
        if let Some(default) = &default {
            label = format!("{label} [{default}]");
        }
        loop {
            let text = prompt(&format!("  {label}: "))?;
            match (text.is_empty(), parse_value(property, &text)) {
                (true, _) if default.is_some() || !is_required => return Ok(default),
                (false, Ok(value)) => return Ok(Some(value)),
                (_, Err(expected)) => anstream::eprintln!("  {expected} is expected"),
                (true, Ok(_)) => anstream::eprintln!("  a value is expected"),
            }
        }
    }
}

/// The values of an enum (SEP-1330).
fn choices(property: &Value) -> Option<Vec<&str>> {
    let property = if property["type"] == "array" { &property["items"] } else { property };
    let titled = property["oneOf"].as_array().or(property["anyOf"].as_array());
    if let Some(titled) = titled {
        return Some(titled.iter().filter_map(|choice| choice["const"].as_str()).collect());
    }
    Some(property["enum"].as_array()?.iter().filter_map(Value::as_str).collect())
}

/// Parses a text as a property's value. An error is what is expected.
fn parse_value(property: &Value, text: &str) -> Result<Value, String> {
    let check_choice = |text: &str| match choices(property) {
        Some(choices) if !choices.contains(&text) => Err(format!("one of {}", choices.join(", "))),
        _ => Ok(json!(text)),
    };
    match property["type"].as_str() {
        Some("boolean") => match &*text.to_lowercase() {
            "true" | "yes" | "y" => Ok(json!(true)),
            "false" | "no" | "n" => Ok(json!(false)),
            _ => Err("yes or no".to_owned()),
        },
        Some("integer") => {
            text.parse::<i64>().map(Value::from).map_err(|_| "a whole number".to_owned())
        }
        Some("number") => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(json!(number)),
            _ => Err("a number".to_owned()),
        },
        Some("array") => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(check_choice).collect::<Result<_, _>>().map(Value::Array)
        }
        _ => check_choice(text),
    }
}

/// Asks at the terminal.
fn prompt(question: &str) -> anyhow::Result<String> {
    anstream::eprint!("{question}");
    std::io::stderr().flush().context("cannot write to the terminal")?;
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let read = read.context("cannot read from the terminal")?;
    if read == 0 {
        return Err(anyhow!("the terminal was closed before an answer"));
    }
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_parsed_by_the_type_of_its_property() {
        let check = |property: Value, text: &str, expected: Result<Value, &str>| {
            assert_eq!(parse_value(&property, text), expected.map_err(str::to_owned), "{text}");
        };
        check(json!({ "type": "boolean" }), "Yes", Ok(json!(true)));
        check(json!({ "type": "boolean" }), "1", Err("yes or no"));
        check(json!({ "type": "integer" }), "7", Ok(json!(7)));
        check(json!({ "type": "integer" }), "7.5", Err("a whole number"));
        check(json!({ "type": "number" }), "7.5", Ok(json!(7.5)));
        check(json!({ "type": "number" }), "NaN", Err("a number"));
        check(json!({ "type": "string" }), "a, b", Ok(json!("a, b")));
        let size = json!({ "type": "string", "enum": ["s", "m"] });
        check(size.clone(), "s", Ok(json!("s")));
        check(size.clone(), "x", Err("one of s, m"));
        check(json!({ "type": "array", "items": size }), "s, m", Ok(json!(["s", "m"])));
        let titled = json!({ "type": "string", "oneOf": [{ "const": "s", "title": "Small" }] });
        check(titled, "Small", Err("one of s"));
    }

    #[test]
    fn forms_are_answered_by_options_and_their_defaults() {
        let answers = |given: &[&str]| Answers {
            given: given.iter().map(|pair| parse_pair(pair).unwrap()).collect(),
            has_terminal: false,
        };
        let requests = json!({ "confirm": { "method": "elicitation/create", "params": {
            "message": "Sure?",
            "requestedSchema": {
                "properties": {
                    "days": { "type": "integer" },
                    "note": { "type": "string", "default": "none" },
                    "more": { "type": "string" },
                },
                "required": ["days"],
            },
        } } });
        let respond = |given: &[&str]| match answers(given).respond(&requests) {
            Ok(mut responses) => responses["confirm"].take().to_string(),
            Err(failure) => failure.into_parts().0.to_string(),
        };
        let accepted = r#"{"action":"accept","content":{"days":3,"note":"x"}}"#;
        assert_eq!(respond(&["days=3", "note=x"]), accepted);
        let with_default = r#"{"action":"accept","content":{"days":3,"note":"none"}}"#;
        assert_eq!(respond(&["days=3", "confirm=accept"]), with_default);
        assert_eq!(respond(&["confirm=decline"]), r#"{"action":"decline"}"#);
        for (given, expected) in [
            (&[][..], "--answer days=…"),
            (&["days=x"], "a whole number"),
            (&["days=3"], "--answer confirm=accept"),
        ] {
            assert!(respond(given).contains(expected), "{given:?}: {}", respond(given));
        }
        assert_eq!(answers(&[]).capabilities(), json!({}));
        assert!(parse_pair("x").is_err());
    }
}
