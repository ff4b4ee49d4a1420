use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    trace::{SpanContext, TraceFlags, TraceId},
};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

use super::*;

fn span(trace: u128, id: u64, parent: u64, request: Option<&str>) -> SpanData {
    let start = UNIX_EPOCH + Duration::from_millis(id);
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(trace.to_be_bytes()),
            SpanId::from_bytes(id.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            Default::default(),
        ),
        parent_span_id: SpanId::from_bytes(parent.to_be_bytes()),
        parent_span_is_remote: false,
        span_kind: SpanKind::Server,
        name: format!("span {id}").into(),
        start_time: start,
        end_time: start + Duration::from_millis(5),
        attributes: request
            .into_iter()
            .map(|id| KeyValue::new(REQUEST_ID, id.to_owned()))
            .collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: Default::default(),
    }
}

fn line(calls: &RecentCalls, message: &str, request: Option<&str>) {
    let mut fields = json!({ "level": "INFO", "message": message });
    if let Some(request) = request {
        fields[REQUEST_ID] = json!(request);
    }
    calls.log_line("edge", fields.to_string().as_bytes());
}

fn names(call: &RecordedCall) -> Vec<&str> {
    call.spans.iter().map(|span| span.name.as_str()).collect()
}

#[test]
fn a_call_has_the_spans_and_lines_of_its_request_alone() {
    let calls = RecentCalls::default();
    // Two requests in one trace of the client; children end before their parents.
    for (id, parent, request) in
        [(3, 2, None), (2, 1, Some("a")), (5, 4, None), (4, 1, Some("b")), (6, 3, Some("a"))]
    {
        calls.span("edge", &span(7, id, parent, request));
    }
    line(&calls, "first", Some("a"));
    line(&calls, "second", Some("b"));
    line(&calls, "of no call", None);
    let call = calls.call("a").unwrap();
    assert_eq!(names(&call), ["span 2", "span 3", "span 6"]);
    assert_eq!(call.lines.len(), 1);
    assert_eq!(call.lines[0].fields["message"], "first");
    assert_eq!(call.trace_id, TraceId::from_bytes(7u128.to_be_bytes()).to_string());
    assert_eq!(names(&calls.call("b").unwrap()), ["span 4", "span 5"]);
    assert_eq!(calls.call("c"), None);
    assert_eq!(calls.lines(0).len(), 3);
    assert_eq!(calls.lines(2)[0].fields["message"], "of no call");
    assert_eq!(calls.requests(), ["b", "a"]);
}

#[test]
fn lines_without_a_trace_belong_to_their_request() {
    let calls = RecentCalls::default();
    line(&calls, "refused", Some("a"));
    let call = calls.call("a").unwrap();
    assert_eq!((call.trace_id.as_str(), call.lines.len()), ("", 1));
}

#[test]
fn the_memory_for_calls_is_bounded() {
    let calls = RecentCalls::default();
    let requests = TRACES_MAX + 10;
    for request in 0..requests {
        let trace = u128::try_from(request).unwrap() + 1;
        calls.span("edge", &span(trace, 1, 0, Some(&request.to_string())));
    }
    assert_eq!(calls.call("9"), None, "the oldest are dropped");
    assert!(calls.call("10").is_some());
    assert_eq!(calls.requests().len(), TRACES_MAX);
    let large = "x".repeat(1024 * 1024);
    for request in 0..100 {
        line(&calls, &large, Some(&format!("large-{request}")));
    }
    let state = calls.lock();
    assert!(state.bytes <= BYTES_MAX && state.traces.len() < 40, "{}", state.bytes);
    assert_eq!(state.requests.len(), state.traces.len());
    drop(state);
    for id in 0..2_000 {
        calls.span("edge", &span(9, id, 0, Some("one")));
    }
    assert_eq!(calls.call("one").unwrap().spans.len(), PER_TRACE_MAX);
}

#[tokio::test]
async fn only_this_user_can_open_the_socket_of_the_calls() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls.sock");
    let calls = Arc::new(RecentCalls::default());
    calls.span("edge", &span(7, 1, 0, Some("a")));
    line(&calls, "hello", Some("a"));
    calls.span("auth", &span(8, 1, 0, Some("of a service")));
    let socket = CallsSocket::serve(&path, calls).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let call: Option<RecordedCall> = query(&path, &CallsQuery::Call("a".into())).await.unwrap();
    assert_eq!(call.unwrap().lines.len(), 1);
    let none: Option<RecordedCall> = query(&path, &CallsQuery::Call("b".into())).await.unwrap();
    assert_eq!(none, None);
    let lines: Vec<RecordedLine> = query(&path, &CallsQuery::Lines(0)).await.unwrap();
    assert_eq!(lines.len(), 1);
    let requests: Vec<String> = query(&path, &CallsQuery::Requests).await.unwrap();
    assert_eq!(requests, ["a"]);
    drop(socket);
    while query::<Vec<String>>(&path, &CallsQuery::Requests).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
