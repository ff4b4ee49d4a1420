use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use url::Url;

/// The id that the client gives its requests. Logs and spans carry it beside the edge's own request
/// id.
pub const REQUEST_ID: &str = "test-request.1";

/// A plain HTTP client of the edge. Unlike an MCP client it can send malformed requests.
#[derive(Clone, Debug)]
pub struct Client {
    url: Url,
    token: Option<String>,
    http: reqwest::Client,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The HTTP headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body as JSON, or null. Of an event stream, its last event.
    pub json: Value,
}

/// How long an idle connection stays open: less than edges of the tests wait before they close one.
/// A request that is sent at that moment would be lost, which is inherent to HTTP/1.1.
const IDLE_TIMEOUT: Duration = Duration::from_millis(500);

impl Client {
    pub(crate) fn new(url: Url, token: Option<String>) -> Self {
        let http = reqwest::Client::builder().pool_idle_timeout(IDLE_TIMEOUT).build();
        Self::with_http(http.expect("a client"), url, token)
    }

    pub(crate) fn with_http(http: reqwest::Client, url: Url, token: Option<String>) -> Self {
        Self { url, token, http }
    }

    /// The same client at another endpoint.
    #[must_use]
    pub fn at(&self, url: &Url) -> Self {
        Self { url: url.clone(), ..self.clone() }
    }

    /// Its access token.
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// A POST to the MCP endpoint with an MCP client's headers, for the test to change.
    pub fn post(&self) -> reqwest::RequestBuilder {
        let request = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .header("x-request-id", REQUEST_ID);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// A GET of the MCP endpoint's event stream, for the test to change.
    pub fn get(&self) -> reqwest::RequestBuilder {
        let request = self
            .http
            .get(self.url.clone())
            .header("accept", "text/event-stream")
            .header("mcp-protocol-version", "2025-11-25");
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        self.send_built(request.build()).await
    }

    /// Sends a request that the test changed after building it.
    pub async fn send_built(&self, request: reqwest::Result<reqwest::Request>) -> Reply {
        self.try_send(request.expect("a request")).await.expect("a response")
    }

    /// Sends a request to an edge that may be gone.
    ///
    /// # Errors
    /// When there is no complete response.
    pub async fn try_send(&self, request: reqwest::Request) -> reqwest::Result<Reply> {
        let response = self.http.execute(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await?;
        let last_event = text.lines().rev().find_map(|line| line.strip_prefix("data: "));
        let json = serde_json::from_str(last_event.unwrap_or(&text)).unwrap_or(Value::Null);
        let request_id =
            headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        assert!(!request_id.is_empty() && request_id != REQUEST_ID, "{headers:?}");
        Ok(Reply { status, headers, text, json })
    }

    /// Sends these bytes as the body of an MCP request.
    pub async fn send_body(&self, body: impl Into<reqwest::Body>) -> Reply {
        self.send(self.post().body(body)).await
    }

    /// Calls an MCP method.
    pub async fn call(&self, method: &str, params: Value) -> Reply {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.send_body(message.to_string()).await
    }

    /// Calls a tool.
    pub async fn call_tool(&self, name: &str, arguments: Value) -> Reply {
        self.call("tools/call", json!({ "name": name, "arguments": arguments })).await
    }

    /// Calls a tool of an edge that may be gone.
    ///
    /// # Errors
    /// When there is no complete response.
    pub async fn try_call_tool(&self, name: &str, arguments: Value) -> reqwest::Result<Reply> {
        let params = json!({ "name": name, "arguments": arguments });
        let message =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        self.try_send(self.post().body(message.to_string()).build()?).await
    }

    /// The names of the listed tools.
    pub async fn tools(&self) -> Vec<String> {
        let reply = self.call("tools/list", json!({})).await;
        let tools = reply.json["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply:?}"));
        tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
    }
}

impl Reply {
    /// The JSON-RPC error's code.
    pub fn error_code(&self) -> Option<i64> {
        self.json["error"]["code"].as_i64()
    }

    /// The JSON-RPC error's message, or else the text of a failed tool result.
    pub fn message(&self) -> &str {
        let error = self.json["error"]["message"].as_str();
        error.or_else(|| self.json["result"]["content"][0]["text"].as_str()).unwrap_or_default()
    }

    /// Asserts that the body carries the request id, by which an operator finds the request in the
    /// log.
    pub fn assert_names_request(&self) {
        let error = &self.json["error"]["data"]["requestId"];
        let result = &self.json["result"]["_meta"]["drawbridge/requestId"];
        assert!(error == self.request_id() || result == self.request_id(), "{self:?}");
    }

    /// Whether the reply reports the item as unknown: it does not exist, or it is hidden from the
    /// caller.
    pub fn is_hidden(&self) -> bool {
        let is_unknown = matches!(self.error_code(), Some(-32602 | -32002));
        self.status == StatusCode::OK && is_unknown && self.message().starts_with("there is no ")
    }

    /// The id that the edge gave the request.
    pub fn request_id(&self) -> &str {
        self.headers["x-request-id"].to_str().expect("a text")
    }
}
