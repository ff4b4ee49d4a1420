//! Sequences of messages, in every revision, with and without a session: each request gets exactly one answer or a
//! clean refusal.
//!
//! An input is a sequence of steps of six bytes: method, parameters, id, revision, session, `Accept`. Each byte chooses
//! from a table.

#![no_main]
#![expect(clippy::expect_used, clippy::panic, reason = "a fuzz target that finds something says so")]

use std::{sync::LazyLock, time::Duration};

use axum::body::Body;
use http::{HeaderValue, Method, Request, StatusCode, header, response};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value, json};

use self::edge::Edge;

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
/// What is waited for a stream that has nothing to say.
const QUIET: Duration = Duration::from_millis(2);
/// What is waited for an answer. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// Those that listen never end by themselves.
const LISTENING: &str = "subscriptions/listen";
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
    LISTENING,
    "notifications/initialized",
    "notifications/cancelled",
    "GET",
    "DELETE",
    "no/such",
];

static EDGE: LazyLock<Edge> = LazyLock::new(|| {
    let edge = Edge::start();
    edge.answers(b"");
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
    let ids = [json!(1), json!(2), json!("a"), json!(""), json!(-1), json!(9_007_199_254_740_993_u64)];
    let odd = [Some(Value::Null), Some(json!(1.5)), Some(json!({})), None];
    match usize::from(byte) % 10 {
        number if number < ids.len() => Some(ids[number].clone()),
        number => odd[number - ids.len()].clone(),
    }
}

/// One step: the request, its method, and the id under which it wants to be answered, where it is a request.
fn request(step: &[u8], session: Option<&HeaderValue>) -> (Request<Body>, &'static str, Option<Value>) {
    let (method, revision) = (choose(&METHODS, step[0]), choose(&REVISIONS, step[3]));
    let message_id = id(step[2]).filter(|_| !method.starts_with("notifications/"));
    let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params(step[1], revision) });
    if let Some(id) = &message_id {
        message["id"] = id.clone();
    }
    let is_message = !matches!(method, "GET" | "DELETE");
    let body = if is_message { Body::from(message.to_string()) } else { Body::empty() };
    let mut request = Request::new(body);
    *request.uri_mut() = "/mcp".parse().expect("a path");
    *request.method_mut() = if is_message { Method::POST } else { method.parse().expect("a method of HTTP") };
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("edge.test"));
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer token"));
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

/// The messages of a body, which is one JSON value or an event stream.
fn messages(head: &response::Parts, body: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    let is_stream =
        head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"text/event-stream");
    let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    if !is_stream {
        return if text.is_empty() { Vec::new() } else { vec![read(text)] };
    }
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(read).collect()
}

fn check(method: &str, id: Option<&Value>, (ended, head, body): &(bool, response::Parts, bytes::Bytes)) {
    if method == LISTENING && !ended {
        return;
    }
    let messages = messages(head, body);
    let is_answer = |message: &&Value| message.get("result").is_some() || message.get("error").is_some();
    let answers: Vec<_> = messages.iter().filter(is_answer).collect();
    let say = || panic!("{method} with the id {id:?}: {head:?} {messages:?}");
    match id {
        _ if method == "GET" || method == "DELETE" => {}
        None => {
            let refused = head.status.is_client_error() && answers.len() == 1;
            if !(head.status == StatusCode::ACCEPTED && messages.is_empty() || refused) {
                say();
            }
        }
        Some(id) => {
            let one = answers.len() == 1 && (answers[0]["id"] == *id || answers[0]["id"].is_null());
            let is_result = answers.first().is_some_and(|answer| answer.get("result").is_some());
            if !(one && *ended && (head.status.is_success() || !is_result)) {
                say();
            }
        }
    }
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let steps = input.chunks_exact(STEP_BYTES).take(STEPS_MAX);
    if steps.len() == 0 {
        return Corpus::Reject;
    }
    let mut session = None;
    for step in steps {
        let (request, method, id) = request(step, session.as_ref());
        let listens = matches!(method, LISTENING | "GET");
        let patience = if listens { QUIET } else { PATIENCE };
        let answered = EDGE.runtime.block_on(EDGE.ask(request, patience));
        let Some(answered) = answered else {
            assert!(listens, "{method} gets no answer");
            continue;
        };
        check(method, id.as_ref(), &answered);
        session = answered.1.headers.get("mcp-session-id").cloned().or(session);
    }
    Corpus::Keep
});
