//! Tools that stream events before their result, and the stream of changes to a resource.

use std::{sync::atomic::Ordering, time::Duration};

use drawbridge_proto::mcp::v1::{
    InputResponses, LogMessage, Progress, ToolResult, log_message::Level,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::{
    Conformance, StreamResult, elicit,
    make::{form, result, text},
    pb::{self, event::Event},
};

/// The pause between two events of a stream.
const PAUSE: Duration = Duration::from_millis(50);
/// The duration of one step of SlowWork.
const STEP_MS: u32 = 20;

fn event(event: Event) -> pb::Event {
    pb::Event { event: Some(event) }
}

/// Streams events with a pause after each, and then the result.
fn stream(events: Vec<Event>, result: ToolResult) -> StreamResult {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for next in events {
            if sender.send(Ok(event(next))).await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let _ = sender.send(Ok(event(Event::Result(result)))).await;
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

fn log(message: &str) -> Event {
    Event::Log(LogMessage {
        level: Level::Info.into(),
        logger: String::new(),
        data: Some(prost_types::Value::from(message.to_owned())),
    })
}

pub(super) fn progress() -> StreamResult {
    let progress = |done: f64| {
        Event::Progress(Progress { progress: done, total: Some(100.0), message: String::new() })
    };
    stream([0.0, 50.0, 100.0].map(progress).to_vec(), result(vec![text("done")]))
}

pub(super) fn log_lines() -> StreamResult {
    let lines = ["Tool execution started", "Tool processing data", "Tool execution completed"];
    stream(lines.map(log).to_vec(), result(vec![text("done")]))
}

pub(super) async fn elicitation(given: &InputResponses) -> StreamResult {
    if given.responses.contains_key("answer") {
        return stream(vec![], result(vec![text("done")]));
    }
    let form = elicit::one("answer", form("Please answer", &elicit::name_form("name")));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let _ = sender.send(Ok(event(Event::InputRequired(form)))).await;
    Ok(Response::new(ReceiverStream::new(receiver)))
}

/// Sends changes while the stream has a receiver.
pub(super) fn changes() -> Response<ReceiverStream<Result<pb::Changed, Status>>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while sender.send(Ok(pb::Changed {})).await.is_ok() {
            tokio::time::sleep(2 * PAUSE).await;
        }
    });
    Response::new(ReceiverStream::new(receiver))
}

/// Works for `milliseconds` with progress, then `silent_milliseconds` without, and counts whether
/// it completed.
pub(super) fn slow_work(service: Conformance, request: pb::SlowWorkRequest) -> StreamResult {
    let steps = request.milliseconds / STEP_MS;
    let silence = Duration::from_millis(request.silent_milliseconds.into());
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for step in 0..steps {
            let progress = Progress {
                progress: step.into(),
                total: Some(steps.into()),
                message: format!("step {step}"),
            };
            if sender.send(Ok(event(Event::Progress(progress)))).await.is_err() {
                service.cancelled.fetch_add(1, Ordering::Relaxed);
                return;
            }
            tokio::time::sleep(Duration::from_millis(STEP_MS.into())).await;
        }
        tokio::time::sleep(silence).await;
        service.finished.fetch_add(1, Ordering::Relaxed);
        let _ = sender.send(Ok(event(Event::Result(result(vec![text("worked")]))))).await;
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}
