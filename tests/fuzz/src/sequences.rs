//! Sequences of messages, in every revision, with and without a session: each request gets exactly
//! one response or a well-formed rejection.
//!
//! An input is a sequence of steps of six bytes: method, parameters, id, revision, session and
//! caller, `Accept`. Each byte indexes a table.

#![no_main]
#![expect(clippy::expect_used, clippy::panic, reason = "a finding ends the fuzz target")]

use std::{sync::LazyLock, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header, response};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value, json};
use tokio::time::timeout;

use self::edge::{Edge, next_part, read_rest};

mod contracts;
mod edge;

const STEP_BYTES: usize = 6;
const STEPS_MAX: usize = 8;
const REVISIONS: [Option<&str>; 5] =
    [None, Some("2025-06-18"), Some("2025-11-25"), Some("2026-07-28"), Some("1999-01-01")];
const ACCEPTS: [Option<&str>; 5] = [
    Some("application/json, text/event-stream"),
    Some("application/json"),
    Some("text/event-stream"),
    Some("*/*"),
    None,
];
/// The time limit for a response, on a busy machine too.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Subscriptions do not end by themselves.
const SUBSCRIBE: &str = "subscriptions/listen";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const METHODS: [&str; 20] = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "server/discover",
    SUBSCRIBE,
    "notifications/initialized",
    "notifications/cancelled",
    "GET",
    "DELETE",
    "no/such",
];

static EDGE: LazyLock<Edge> = LazyLock::new(|| {
    let edge = Edge::start();
    edge.set_tool_response(b"");
    edge
});

fn choose<T: Clone>(table: &[T], byte: u8) -> T {
    table[usize::from(byte) % table.len()].clone()
}

fn params(byte: u8, revision: Option<&str>) -> Value {
    let mut params = choose(
        &[
            json!({
                "protocolVersion": revision.unwrap_or("2025-11-25"), "capabilities": {},
                "clientInfo": { "name": "fuzz", "version": "0" },
            }),
            json!({ "name": "code_search", "arguments": { "query": "x" } }),
            json!({ "name": "code_search", "arguments": { "query": 1, "nope": [] } }),
            json!({ "name": "no_such_tool", "arguments": null }),
            json!({ "name": "code_search", "arguments": { "query": "x" }, "_meta": { "progressToken": 7 } }),
            json!({ "uri": "code://README.md" }),
            json!({ "uri": "none:" }),
            json!({ "cursor": "Cm4KMQ" }),
            json!({ "cursor": "!" }),
            json!({ "requestId": 1 }),
            json!({ "level": "debug" }),
            json!({ "notifications": { "toolsListChanged": true } }),
            json!({ "ref": { "type": "ref/resource", "uri": "code://{+path}" },
                "argument": { "name": "path", "value": "R" } }),
            json!([]),
            json!("text"),
            Value::Null,
            json!({}),
        ],
        byte,
    );
    if revision == Some("2026-07-28")
        && let Some(object) = params.as_object_mut()
    {
        object.insert(
            "_meta".to_owned(),
            json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            }),
        );
    }
    params
}

fn id(byte: u8) -> Option<Value> {
    let ids =
        [json!(1), json!(2), json!("a"), json!(""), json!(-1), json!(9_007_199_254_740_993_u64)];
    let odd = [Some(Value::Null), Some(json!(1.5)), Some(json!({})), None];
    match usize::from(byte) % 10 {
        number if number < ids.len() => Some(ids[number].clone()),
        number => odd[number - ids.len()].clone(),
    }
}

/// The caller of a step.
fn caller(step: &[u8]) -> &'static str {
    if step[4] & 0x40 == 0 { "alice" } else { "bob" }
}

/// A request without a body.
fn empty(method: &str, caller: &str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/mcp".parse().expect("a path");
    *request.method_mut() = method.parse().expect("a method of HTTP");
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("edge.test"));
    headers.insert(header::AUTHORIZATION, format!("Bearer {caller}").parse().expect("a header"));
    request
}

/// The request of one step, its method, and the message's id if it needs a response.
fn request(
    step: &[u8],
    session: Option<&HeaderValue>,
) -> (Request<Body>, &'static str, Option<Value>) {
    let (method, revision) = (choose(&METHODS, step[0]), choose(&REVISIONS, step[3]));
    let message_id = id(step[2]).filter(|_| !method.starts_with("notifications/"));
    let mut message =
        json!({ "jsonrpc": "2.0", "method": method, "params": params(step[1], revision) });
    if let Some(id) = &message_id {
        message["id"] = id.clone();
    }
    let is_message = !matches!(method, "GET" | "DELETE");
    let mut request = empty(if is_message { "POST" } else { method }, caller(step));
    if is_message {
        *request.body_mut() = Body::from(message.to_string());
    }
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(accept) = choose(&ACCEPTS, step[5]) {
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    }
    if let Some(revision) = revision {
        headers.insert("mcp-protocol-version", HeaderValue::from_static(revision));
    }
    if revision == Some("2026-07-28") && step[4] & 0x80 == 0 {
        headers.insert("mcp-method", HeaderValue::from_static(method));
        let name = message["params"]["name"].as_str().or_else(|| message["params"]["uri"].as_str());
        if let Some(name) = name {
            headers.insert("mcp-name", name.parse().expect("a header"));
        }
    }
    match (step[4] % 3, session) {
        (1, Some(session)) => _ = headers.insert("mcp-session-id", session.clone()),
        (2, _) => _ = headers.insert("mcp-session-id", HeaderValue::from_static("none")),
        _ => {}
    }
    (request, method, message_id)
}

/// The data of each event of a stream, read as a browser reads it (WHATWG HTML, section 9.2.6).
fn events(text: &str) -> Vec<String> {
    let (mut events, mut data) = (Vec::new(), Vec::new());
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    for line in text.split('\n') {
        if line.is_empty() {
            // An event with empty data only marks a position in the stream (SEP-1699).
            events.extend(Some(data.join("\n")).filter(|data| !data.is_empty()));
            data.clear();
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value).to_owned());
        }
    }
    assert!(data.is_empty(), "an incomplete event: {text:?}");
    events
}

fn is_stream(head: &response::Parts) -> bool {
    head.headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == b"text/event-stream")
}

/// The messages of a body, which is one JSON value or an event stream.
fn messages(head: &response::Parts, body: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    let texts = match is_stream(head) {
        true => events(text),
        false => Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().collect(),
    };
    let read = |text: String| {
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    };
    texts.into_iter().map(read).collect()
}

fn check(method: &str, id: Option<&Value>, head: &response::Parts, body: &[u8]) {
    let messages = messages(head, body);
    let is_response =
        |message: &&Value| message.get("result").is_some() || message.get("error").is_some();
    let responses: Vec<_> = messages.iter().filter(is_response).collect();
    let fail = || panic!("{method} with the id {id:?}: {head:?} {messages:?}");
    match id {
        _ if method == "GET" || method == "DELETE" => {}
        None => {
            let is_rejected = head.status.is_client_error() && responses.len() == 1;
            if !(head.status == StatusCode::ACCEPTED && messages.is_empty() || is_rejected) {
                fail();
            }
        }
        Some(id) => {
            let is_single =
                responses.len() == 1 && (responses[0]["id"] == *id || responses[0]["id"].is_null());
            let is_result =
                responses.first().is_some_and(|response| response.get("result").is_some());
            if !(is_single && (head.status.is_success() || !is_result)) {
                fail();
            }
        }
    }
}

/// Waits for an expected event, with the time limit for a response.
async fn expect_in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(RESPONSE_TIMEOUT, future).await.unwrap_or_else(|_| panic!("{what} does not arrive"))
}

/// The state of a sequence across its steps.
#[derive(Default)]
struct Sequence {
    /// The ids of the opened sessions and their callers.
    sessions: Vec<(HeaderValue, &'static str)>,
    /// The standalone streams of sessions.
    streams: Vec<Body>,
}

impl Sequence {
    async fn step(&mut self, step: &[u8]) {
        let (request, method, id) = request(step, self.sessions.last().map(|(id, _)| id));
        let (head, mut body) =
            expect_in_time(method, EDGE.send(request, RESPONSE_TIMEOUT)).await.expect("in time");
        let mut first = Bytes::new();
        if is_stream(&head) && matches!(method, SUBSCRIBE | "GET") {
            // The stream starts at once, and ends with its session or its client.
            first = expect_in_time(method, next_part(&mut body)).await.expect("a first part");
            if method == "GET" {
                return self.streams.push(body);
            }
            if messages(&head, &first).first().is_some_and(|first| first["method"] == ACKNOWLEDGED)
            {
                return;
            }
        }
        let (text, is_complete) = read_rest(&mut body, RESPONSE_TIMEOUT).await;
        assert!(is_complete, "the response to {method} is incomplete: {head:?} {text:?}");
        check(method, id.as_ref(), &head, &[first, text].concat());
        if let Some(session) = head.headers.get("mcp-session-id") {
            self.sessions.push((session.clone(), caller(step)));
        }
    }

    /// Ends all sessions and their streams, so that the next sequence starts without any.
    async fn end(self) {
        for (session, caller) in self.sessions {
            let mut request = empty("DELETE", caller);
            request.headers_mut().insert("mcp-session-id", session);
            let (head, _) = expect_in_time("DELETE", EDGE.send(request, RESPONSE_TIMEOUT))
                .await
                .expect("in time");
            assert!(
                [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND].contains(&head.status),
                "{head:?}"
            );
        }
        for mut body in self.streams {
            let (text, is_complete) = read_rest(&mut body, RESPONSE_TIMEOUT).await;
            assert!(is_complete, "the stream of a session does not end with it: {text:?}");
        }
    }
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let steps = input.chunks_exact(STEP_BYTES).take(STEPS_MAX);
    if steps.len() == 0 {
        return Corpus::Reject;
    }
    EDGE.runtime.block_on(async {
        let mut sequence = Sequence::default();
        for step in steps {
            sequence.step(step).await;
        }
        sequence.end().await;
    });
    Corpus::Keep
});
