//! A JSON-RPC message, as far as the gate has to know it.

use opentelemetry::propagation::Extractor;
use serde::Deserialize;
use serde_json::Value;

use crate::refusal::Refusal;

/// The longest method name that is taken into a span.
const METHOD_BYTES_MAX: usize = 64;

/// Methods that a metric may name.
const METHODS: [&str; 17] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/initialized",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "subscriptions/listen",
    "tools/call",
    "tools/list",
];

/// Stands for every other method.
pub(crate) const OTHER: &str = "other";

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Notification,
    /// What a client answers to a request of the server.
    Response,
}

/// One JSON-RPC 2.0 message. A response has an empty method.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// Null for a notification.
    pub(crate) id: Value,
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<Value>,
}

// A field that stands twice is refused, so that no two readers can take a message for two things.
#[derive(Deserialize)]
struct Envelope {
    jsonrpc: String,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Value,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    error: Option<Value>,
}

/// Null is not the same as nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Whether this is an id: a string or a whole number.
fn is_id(id: &Value) -> bool {
    match id {
        Value::String(_) => true,
        Value::Number(number) => number.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}

impl Message {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let value: Envelope = match serde_json::from_slice(body) {
            Ok(envelope) => envelope,
            Err(_) if body.trim_ascii_start().starts_with(b"[") => {
                return Err(Refusal::Invalid("it must be one object, not a batch".to_owned()));
            }
            Err(error) if error.is_data() => return Err(Refusal::Invalid(error.to_string())),
            Err(error) => return Err(Refusal::Parse(error.to_string())),
        };
        let Envelope { jsonrpc, id, method, params, result, error } = value;
        if jsonrpc != "2.0" {
            return Err(Refusal::Invalid("jsonrpc must be \"2.0\"".to_owned()));
        }
        if id.as_ref().is_some_and(|id| !is_id(id)) {
            return Err(Refusal::Invalid("id must be a string or a whole number".to_owned()));
        }
        let kind = match (&method, &id, result.is_some() != error.is_some()) {
            (Some(_), Some(_), false) => Kind::Request,
            (Some(_), None, false) => Kind::Notification,
            (None, Some(_), true) => Kind::Response,
            _ => return Err(Refusal::Invalid("it must have a method, or an id with its result".to_owned())),
        };
        let (id, method) = (id.unwrap_or_default(), method.unwrap_or_default());
        if method.len() > METHOD_BYTES_MAX {
            return Err(Refusal::Invalid(format!("method is longer than {METHOD_BYTES_MAX} bytes")));
        }
        if !matches!(params, Value::Null | Value::Object(_)) {
            return Err(Refusal::Invalid("params must be an object".to_owned()));
        }
        Ok(Self { kind, id, method, params, result, error })
    }

    /// The tool that a `tools/call` names.
    pub(crate) fn tool_name(&self) -> Option<&str> {
        (self.method == "tools/call").then(|| self.params.get("name")?.as_str()).flatten()
    }

    /// The method when it is one of MCP's, so that no caller can make up a metric's label.
    pub(crate) fn known_method(&self) -> &'static str {
        METHODS.into_iter().find(|method| *method == self.method).unwrap_or(OTHER)
    }

    /// `{method} {tool}`, or the method alone.
    pub(crate) fn span_name(&self) -> String {
        match self.tool_name() {
            Some(tool) => format!("{} {tool}", self.method),
            None => self.known_method().to_owned(),
        }
    }

    /// The revision that the request itself names (2026-07-28 and later).
    pub(crate) fn revision(&self) -> Option<&str> {
        self.params.get("_meta")?.get("io.modelcontextprotocol/protocolVersion")?.as_str()
    }

    /// Whether `_meta` carries trace context.
    pub(crate) fn has_trace(&self) -> bool {
        self.get("traceparent").is_some()
    }
}

impl Extractor for Message {
    fn get(&self, key: &str) -> Option<&str> {
        self.params.get("_meta")?.get(key)?.as_str()
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, word: &str) {
        let refusal = Message::parse(body.as_bytes()).expect_err(body);
        assert_eq!(refusal.word(), word, "{body}");
    }

    #[test]
    fn what_is_no_message_is_refused_for_what_it_is() {
        check("", "parse");
        check("{", "parse");
        check(r#"{"jsonrpc":"2.0",}"#, "parse");
        check("[]", "invalid_request");
        check("1", "invalid_request");
        check("{}", "invalid_request");
        check(r#"{"jsonrpc":"1.0","method":"ping"}"#, "invalid_request");
        check(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "invalid_request");
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, "invalid_request");
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#, "invalid_request");
        check(&format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "x".repeat(65)), "invalid_request");
        check(&format!(r#"{{"jsonrpc":"2.0","params":{}1{}}}"#, "[".repeat(200), "]".repeat(200)), "parse");
    }

    #[test]
    fn a_tool_call_names_its_span() {
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"code_search"}}"#;
        assert_eq!(Message::parse(body).unwrap().span_name(), "tools/call code_search");
    }
}
