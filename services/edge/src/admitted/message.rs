//! A JSON-RPC message of an authenticated caller.

use opentelemetry::propagation::Extractor;
use serde_json::Value;

use crate::truncate::truncate;

/// The longest id, in bytes of JSON: responses, spans and logs contain it.
pub(crate) const ID_BYTES_MAX: usize = 1024;

/// The methods that may be a metric label.
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

/// The label of every other method.
const OTHER: &str = "other";

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Notification,
    /// A client's response to a request of the server.
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

impl Message {
    /// The tool that a `tools/call` names.
    pub(crate) fn tool_name(&self) -> Option<&str> {
        (self.method == "tools/call").then(|| self.params.get("name")?.as_str()).flatten()
    }

    /// The prompt that a `prompts/get` names.
    pub(crate) fn prompt_name(&self) -> Option<&str> {
        (self.method == "prompts/get").then(|| self.params.get("name")?.as_str()).flatten()
    }

    /// The revision that the request names in `_meta` or, to open a session, in its parameters.
    pub(crate) fn requested_revision(&self) -> Option<&str> {
        let opening = || self.params.get("protocolVersion")?.as_str();
        self.revision().or_else(|| (self.method == "initialize").then(opening).flatten())
    }

    /// The method if it is one of MCP's, so that no caller can invent a metric label.
    pub(crate) fn known_method(&self) -> &'static str {
        METHODS.into_iter().find(|method| *method == self.method).unwrap_or(OTHER)
    }

    /// `{method} {tool or prompt}`, or the method alone.
    pub(crate) fn span_name(&self) -> String {
        match self.tool_name().or_else(|| self.prompt_name()) {
            Some(target) => format!("{} {}", self.method, truncate(target)),
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
