//! A client of MCP's Streamable HTTP in its stateless revision.

use std::io::IsTerminal as _;

use anyhow::{Context as _, anyhow};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use drawbridge_runtime::bounded;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::{answers::Answers, events::Events, failure::Failure, show};
use crate::sign_in::SignIn;

const REVISION: &str = "2026-07-28";
/// The largest response that is no stream, in bytes.
const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often one call may ask the person.
const ROUNDS_MAX: usize = 32;
/// How many pages of a list are read.
const PAGES_MAX: usize = 1_000;

/// A client of one endpoint, in the name of one person.
pub(super) struct Client {
    http: reqwest::Client,
    sign_in: SignIn,
    /// The token that the person gave.
    given: Option<SecretString>,
    /// The token in use.
    token: Option<SecretString>,
    answers: Answers,
    shows_progress: bool,
    id: u64,
}

impl Client {
    pub(super) fn new(
        sign_in: SignIn,
        given: Option<SecretString>,
        answers: Answers,
        shows_progress: bool,
    ) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let http = http.context("cannot read this system's certificates")?;
        let shows_progress = shows_progress || std::io::stderr().is_terminal();
        Ok(Self { http, sign_in, token: given.clone(), given, answers, shows_progress, id: 0 })
    }

    /// All items of a list, such as `tools`.
    pub(super) async fn list(&mut self, kind: &str) -> Result<Vec<Value>, Failure> {
        let method = if kind == "resourceTemplates" {
            "resources/templates/list".to_owned()
        } else {
            format!("{kind}/list")
        };
        let (mut items, mut params) = (Vec::new(), json!({}));
        for _ in 0..PAGES_MAX {
            let mut page = self.request(&method, params.clone(), &[]).await?;
            match page[kind].take() {
                Value::Array(found) => items.extend(found),
                _ => return Err(anyhow!("the response of {method} contains no {kind}").into()),
            }
            match page["nextCursor"].take() {
                Value::Null => return Ok(items),
                cursor => params["cursor"] = cursor,
            }
        }
        Err(anyhow!("the list of {kind} has more than {PAGES_MAX} pages").into())
    }

    /// Makes a request, answers the questions that it asks, and returns its result.
    pub(super) async fn request(
        &mut self,
        method: &str,
        mut params: Value,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Value, Failure> {
        for _ in 0..ROUNDS_MAX {
            let mut events = self.open(method, params.clone(), headers).await?;
            let result = loop {
                let message = events.next().await?;
                let message = message.context("the response ended without a result")?;
                if message.get("method").is_some() {
                    if self.shows_progress {
                        show::notification(&message);
                    }
                } else if let Some(error) = message.get("error") {
                    return Err(Failure::of(error));
                } else {
                    break message["result"].clone();
                }
            };
            if result["resultType"] != "input_required" {
                return Ok(result);
            }
            params["requestState"] = result["requestState"].clone();
            params["inputResponses"] = self.answers.respond(&result["inputRequests"])?;
        }
        Err(anyhow!("the call asked more than {ROUNDS_MAX} times").into())
    }

    /// Sends a request, with a new token if the current one is not accepted.
    pub(super) async fn open(
        &mut self,
        method: &str,
        params: Value,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Events, Failure> {
        let response = self.send(method, &params, headers, false).await?;
        let is_refused = response.status() == StatusCode::UNAUTHORIZED && self.given.is_none();
        let response = match is_refused {
            true => self.send(method, &params, headers, true).await?,
            false => response,
        };
        let is_stream = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if is_stream {
            return Ok(Events::stream(response));
        }
        let status = response.status();
        let body =
            bounded::read_body(http::Response::from(response).into_body(), RESPONSE_BYTES_MAX);
        let body = body.await.context("cannot read the response")?;
        serde_json::from_slice(&body).map(Events::one).map_err(|_| {
            let problem = anyhow!("{} answered {status}", self.sign_in.endpoint);
            match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused(problem),
                _ => Failure::Failed(problem),
            }
        })
    }

    async fn send(
        &mut self,
        method: &str,
        params: &Value,
        headers: &[(HeaderName, HeaderValue)],
        is_refused: bool,
    ) -> Result<reqwest::Response, Failure> {
        let token = match &self.token {
            Some(token) if !is_refused => token.clone(),
            _ => {
                let tokens = self.sign_in.token(is_refused).await;
                tokens.map_err(Failure::Refused)?.access_token
            }
        };
        self.token = Some(token.clone());
        self.id += 1;
        let mut params = params.clone();
        params["_meta"] = self.meta();
        let mut all = HeaderMap::new();
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        all.insert("mcp-protocol-version", HeaderValue::from_static(REVISION));
        all.insert("mcp-method", header_value(method));
        if let Some(name) = params.get("name").or(params.get("uri")).and_then(Value::as_str) {
            all.insert("mcp-name", header_value(name));
        }
        all.extend(headers.iter().cloned());
        let body = json!({ "jsonrpc": "2.0", "id": self.id, "method": method, "params": params });
        let request = self.http.post(self.sign_in.endpoint.clone()).headers(all);
        let request = request.bearer_auth(token.expose_secret()).body(body.to_string());
        let sent = request.send().await.map_err(reqwest::Error::without_url);
        Ok(sent.with_context(|| format!("cannot reach {}", self.sign_in.endpoint))?)
    }

    /// What the request says of this client.
    fn meta(&self) -> Value {
        let mut meta = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientInfo": {
                "name": "drawbridge", "version": env!("CARGO_PKG_VERSION"),
            },
            "io.modelcontextprotocol/clientCapabilities": self.answers.capabilities(),
        });
        if self.shows_progress {
            meta["progressToken"] = json!(self.id);
            meta["io.modelcontextprotocol/logLevel"] = json!("info");
        }
        meta
    }
}

/// The headers that repeat arguments (SEP-2243).
pub(super) fn argument_headers(
    schema: &Value,
    arguments: &Value,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let argument = &arguments[name];
        let text = match argument {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(argument.to_string()),
            _ => None,
        };
        let header = property["x-mcp-header"].as_str();
        let header = header.and_then(|header| format!("mcp-param-{header}").parse().ok());
        if let (Some(header), Some(text)) = (header, text) {
            headers.push((header, header_value(&text)));
        }
        headers.extend(argument_headers(property, argument));
    }
    headers
}

/// A text as a header's value: as it is, or else in base64 (SEP-2243).
fn header_value(text: &str) -> HeaderValue {
    let is_plain = text.trim() == text
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && !text.starts_with("=?base64?");
    let plain = HeaderValue::from_str(text).ok().filter(|_| is_plain);
    plain.unwrap_or_else(|| {
        let encoded = format!("=?base64?{}?=", BASE64.encode(text));
        HeaderValue::from_str(&encoded).unwrap_or(HeaderValue::from_static(""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_repeated_in_the_headers_that_a_schema_names() {
        let schema = json!({ "properties": {
            "region": { "x-mcp-header": "Region" },
            "count": { "x-mcp-header": "Count" },
            "absent": { "x-mcp-header": "Absent" },
            "plain": {},
            "within": { "properties": { "city": { "x-mcp-header": "City" } } },
        } });
        let arguments = json!({
            "region": "eu", "count": 7, "plain": "x", "within": { "city": "Zürich" },
        });
        let headers = argument_headers(&schema, &arguments);
        let mut found: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "mcp-param-city: =?base64?WsO8cmljaA==?=",
                "mcp-param-count: 7",
                "mcp-param-region: eu"
            ]
        );
    }
}
