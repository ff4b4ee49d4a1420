//! Tools that elicit input before they reply.

use std::collections::HashMap;

use drawbridge_proto::mcp::v1::{
    InputRequest, InputRequired, InputResponses, elicit_result::Action, input_response::Kind,
};
use prost_types::Struct;
use serde_json::{Value, json};

use super::{
    UnaryResult,
    make::{
        self, form as form_request, json_struct, reply_text, require_input, roots,
        sampling as sampling_request,
    },
};

pub(super) fn one(key: &str, request: InputRequest) -> InputRequired {
    InputRequired { requests: HashMap::from([(key.to_owned(), request)]), state: Vec::new() }
}

fn one_with(key: &str, request: InputRequest, state: &[u8]) -> InputRequired {
    InputRequired { state: state.to_vec(), ..one(key, request) }
}

pub(super) fn name_form(field: &str) -> Value {
    json!({ "type": "object", "properties": { field: { "type": "string" } }, "required": [field] })
}

fn kind<'a>(given: &'a InputResponses, key: &str) -> Option<&'a Kind> {
    given.responses.get(key)?.kind.as_ref()
}

/// The form's content, if the user accepted it.
pub(super) fn accepted(given: &InputResponses, key: &str) -> Option<Struct> {
    match kind(given, key)? {
        Kind::Elicitation(result) if result.action() == Action::Accept => {
            Some(result.content.clone().unwrap_or_default())
        }
        _ => None,
    }
}

fn string(fields: &Struct, name: &str) -> Option<String> {
    match fields.fields.get(name)?.kind.as_ref()? {
        prost_types::value::Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// The text that the client's model sampled.
fn sampled(given: &InputResponses, key: &str) -> Option<String> {
    use drawbridge_proto::mcp::v1::content_block::Kind as Block;
    match kind(given, key)? {
        Kind::Sampling(result) => match result.content.first()?.kind.as_ref()? {
            Block::Text(text) => Some(text.text.clone()),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn sampling(prompt: &str, given: &InputResponses) -> UnaryResult {
    match sampled(given, "answer") {
        Some(text) => reply_text(&format!("LLM response: {text}")),
        None => require_input(one("answer", sampling_request(prompt))),
    }
}

/// Elicits a form once, and reports the user's action and content.
fn form_outcome(
    prefix: &str,
    message: &str,
    schema: &Value,
    given: &InputResponses,
) -> UnaryResult {
    match kind(given, "answer") {
        Some(Kind::Elicitation(result)) => {
            let action = result.action().as_str_name().trim_start_matches("ACTION_").to_lowercase();
            let content = json_struct(result.content.as_ref().unwrap_or(&Struct::default()));
            reply_text(&format!("{prefix}: action={action}, content={content}"))
        }
        _ => require_input(one("answer", form_request(message, schema))),
    }
}

pub(super) fn elicitation(message: &str, given: &InputResponses) -> UnaryResult {
    let schema = json!({
        "type": "object",
        "properties": {
            "username": { "type": "string", "description": "User's response" },
            "email": { "type": "string", "description": "User's email address" },
        },
        "required": ["username", "email"],
    });
    form_outcome("User response", message, &schema, given)
}

pub(super) fn form(message: &str, schema: &Value, given: &InputResponses) -> UnaryResult {
    form_outcome("Elicitation completed", message, schema, given)
}

pub(super) fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "default": "John Doe" },
            "age": { "type": "integer", "default": 30 },
            "score": { "type": "number", "default": 95.5 },
            "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
            "verified": { "type": "boolean", "default": true },
        },
        "required": [],
    })
}

pub(super) fn enums() -> Value {
    let titled = |what: &str| {
        let names = ["First", "Second", "Third"];
        let choices = names.iter().zip(1..).map(
            |(name, number)| json!({ "const": format!("value{number}"), "title": format!("{name} {what}") }),
        );
        choices.collect::<Vec<_>>()
    };
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": ["option1", "option2", "option3"] },
            "titledSingle": { "type": "string", "oneOf": titled("Option") },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {
                "type": "array",
                "items": { "type": "string", "enum": ["option1", "option2", "option3"] },
            },
            "titledMulti": { "type": "array", "items": { "anyOf": titled("Choice") } },
        },
        "required": [],
    })
}

/// Elicits a page by URL until it is opened, if the client supports that and has not replied.
pub(super) fn page(is_opened: bool, given: &InputResponses) -> UnaryResult {
    match kind(given, "page") {
        _ if is_opened => reply_text("the page was opened"),
        Some(Kind::Elicitation(result)) if result.action() == Action::Accept => {
            reply_text("it will be opened")
        }
        _ => require_input(one("page", make::page())),
    }
}

pub(super) fn user_name(given: &InputResponses) -> UnaryResult {
    match accepted(given, "user_name").and_then(|fields| string(&fields, "name")) {
        Some(name) => reply_text(&format!("Hello, {name}!")),
        None => {
            require_input(one("user_name", form_request("What is your name?", &name_form("name"))))
        }
    }
}

pub(super) fn capital(given: &InputResponses) -> UnaryResult {
    match sampled(given, "capital_question") {
        Some(text) => reply_text(&text),
        None => require_input(one(
            "capital_question",
            sampling_request("What is the capital of France?"),
        )),
    }
}

pub(super) fn client_roots(given: &InputResponses) -> UnaryResult {
    match kind(given, "client_roots") {
        Some(Kind::Roots(found)) => {
            let uris: Vec<_> = found.roots.iter().map(|root| root.uri.as_str()).collect();
            reply_text(&uris.join(" "))
        }
        _ => require_input(one("client_roots", roots())),
    }
}

fn confirm_form() -> Value {
    json!({ "type": "object", "properties": { "ok": { "type": "boolean" } }, "required": ["ok"] })
}

pub(super) fn with_state(given: &InputResponses) -> UnaryResult {
    if accepted(given, "confirm").is_none() {
        return require_input(one_with(
            "confirm",
            form_request("Please confirm", &confirm_form()),
            b"the state",
        ));
    }
    reply_text(if given.state == b"the state" { "state-ok" } else { "state-lost" })
}

pub(super) fn several(given: &InputResponses) -> UnaryResult {
    let name = accepted(given, "user_name").and_then(|fields| string(&fields, "name"));
    let (text, found) = (sampled(given, "greeting"), kind(given, "client_roots"));
    if let (Some(name), Some(text), Some(Kind::Roots(found))) = (name, text, found) {
        return reply_text(&format!("{name}: {text} ({} roots)", found.roots.len()));
    }
    let requests = [
        ("user_name", form_request("What is your name?", &name_form("name"))),
        ("greeting", sampling_request("Write a greeting.")),
        ("client_roots", roots()),
    ];
    let requests = requests.map(|(key, request)| (key.to_owned(), request)).into_iter().collect();
    require_input(InputRequired { requests, state: b"several".to_vec() })
}

pub(super) fn two_rounds(given: &InputResponses) -> UnaryResult {
    if given.state == b"round 2" && accepted(given, "step2").is_some() {
        return reply_text("done in two rounds");
    }
    if given.state == b"round 1" && accepted(given, "step1").is_some() {
        return require_input(one_with(
            "step2",
            form_request("What is your favourite colour?", &name_form("color")),
            b"round 2",
        ));
    }
    require_input(one_with(
        "step1",
        form_request("What is your name?", &name_form("name")),
        b"round 1",
    ))
}

pub(super) fn by_capability(given: &InputResponses) -> UnaryResult {
    if kind(given, "asked").is_some() {
        return reply_text("thank you");
    }
    let client = given.client.clone().unwrap_or_default();
    require_input(if client.elicit_form {
        one("asked", form_request("What is your name?", &name_form("name")))
    } else if client.sampling {
        one("asked", sampling_request("What is the capital of France?"))
    } else {
        one("asked", roots())
    })
}
