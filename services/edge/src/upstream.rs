//! Calls a tool service: any RPC, by its descriptor.

use std::time::{Duration, Instant};

use drawbridge_sdk::{CallContext, dynamic::DynamicCodec, with_transaction_token};
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use tonic::{Code, Status, Streaming, transport::Channel};
use tracing::{Instrument as _, Span, field::Empty};

/// The largest answer that is taken from a tool service, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One RPC of one tool service, and how to read what comes back.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    channel: Channel,
    path: PathAndQuery,
    input: MessageDescriptor,
    output: MessageDescriptor,
    events: Option<Events>,
    pub(crate) timeout: Duration,
}

/// The fields of a streamed event, told apart by their message types.
#[derive(Clone, Debug)]
struct Events {
    progress: Option<FieldDescriptor>,
    result: FieldDescriptor,
    result_type: MessageDescriptor,
}

/// What a tool service tells of a call under way.
#[derive(Debug)]
pub(crate) enum Event {
    /// How far it is.
    Progress(drawbridge_proto::mcp::v1::Progress),
    /// How it ended.
    Result(DynamicMessage),
}

impl Target {
    /// The target that is `method` behind `channel`.
    ///
    /// # Errors
    /// The number of result fields, when a streamed event does not have exactly one.
    pub(crate) fn new(channel: Channel, method: &MethodDescriptor, timeout: Duration) -> Result<Self, usize> {
        let events = if method.is_server_streaming() { Some(events(&method.output())?) } else { None };
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        Ok(Self {
            channel,
            // INVARIANT: protobuf names are letters, digits, underscores and dots.
            path: path.parse().unwrap_or_else(|_| PathAndQuery::from_static("/")),
            input: method.input(),
            output: method.output(),
            events,
            timeout,
        })
    }

    /// The RPC, `package.Service/Method`.
    pub(crate) fn rpc(&self) -> &str {
        self.path.path().trim_start_matches('/')
    }

    /// The message that the RPC takes.
    pub(crate) fn input(&self) -> MessageDescriptor {
        self.input.clone()
    }

    /// The message that is the result.
    pub(crate) fn result(&self) -> MessageDescriptor {
        self.events.as_ref().map_or_else(|| self.output.clone(), |events| events.result_type.clone())
    }

    /// Begins a call. It ends when its result is there, its deadline passes, or it is dropped.
    ///
    /// # Errors
    /// The service's status.
    pub(crate) async fn begin(
        &self,
        context: &CallContext,
        token: &str,
        message: DynamicMessage,
    ) -> Result<Answering, Status> {
        let span = tracing::info_span!(
            "rpc",
            otel.name = self.rpc(),
            otel.kind = "client",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = self.rpc(),
            rpc.response.status_code = Empty,
        );
        let deadline = context.deadline.min(Instant::now() + self.timeout);
        let context = CallContext { request_id: context.request_id.clone(), deadline };
        let mut ended = Ended { span: span.clone(), code: Code::Cancelled };
        let sending = within(deadline, self.send(&context, token, message)).instrument(span);
        match sending.await {
            Ok(answer) => Ok(Answering { answer, deadline, ended }),
            Err(status) => {
                ended.code = status.code();
                Err(status)
            }
        }
    }

    async fn send(
        &self,
        context: &CallContext,
        token: &str,
        message: DynamicMessage,
    ) -> Result<Answer, Status> {
        let request = with_transaction_token(context.outgoing(message), token)?;
        let mut client =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        client.ready().await.map_err(|_| Status::unavailable("the tool service does not answer"))?;
        let codec = DynamicCodec::new(self.output.clone());
        match &self.events {
            None => {
                let response = client.unary(request, self.path.clone(), codec).await?;
                Ok(Answer::Unary(Some(response.into_inner())))
            }
            Some(events) => {
                let response = client.server_streaming(request, self.path.clone(), codec).await?;
                Ok(Answer::Stream(Box::new(response.into_inner()), events.clone()))
            }
        }
    }
}

/// A call whose result is still to come.
pub(crate) struct Answering {
    answer: Answer,
    deadline: Instant,
    ended: Ended,
}

enum Answer {
    Unary(Option<DynamicMessage>),
    Stream(Box<Streaming<DynamicMessage>>, Events),
}

impl Answering {
    /// What comes next: progress, any number of times, and then the result.
    ///
    /// # Errors
    /// The service's status, or `INTERNAL` when its stream ends without a result.
    pub(crate) async fn next(&mut self) -> Result<Event, Status> {
        let event = within(self.deadline, self.answer.next()).await;
        match &event {
            Ok(Event::Progress(_)) => {}
            Ok(Event::Result(_)) => self.ended.code = Code::Ok,
            Err(status) => self.ended.code = status.code(),
        }
        event
    }
}

impl Answer {
    async fn next(&mut self) -> Result<Event, Status> {
        let without_result = || Status::internal("the stream ended without a result");
        match self {
            Self::Unary(message) => message.take().map(Event::Result).ok_or_else(without_result),
            Self::Stream(stream, events) => loop {
                let message = stream.message().await?.ok_or_else(without_result)?;
                if let Some(event) = events.read(message) {
                    return Ok(event);
                }
            },
        }
    }
}

async fn within<T>(deadline: Instant, task: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout_at(deadline.into(), task)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call took too long")))
}

/// Notes in its span how a call ended, also when nobody waits any more.
struct Ended {
    span: Span,
    code: Code,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.span.record("rpc.response.status_code", format!("{:?}", self.code));
        if self.code != Code::Ok {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

/// Tells the fields of a streamed event apart.
fn events(event: &MessageDescriptor) -> Result<Events, usize> {
    let mut progress = None;
    let mut results = Vec::new();
    for field in event.fields() {
        match field.kind() {
            Kind::Message(message) if message.full_name() == "drawbridge.mcp.v1.Progress" => {
                progress = Some(field);
            }
            Kind::Message(message) if is_event(&message) => {}
            Kind::Message(message) if !field.is_list() => results.push((field, message)),
            _ => {}
        }
    }
    match <[_; 1]>::try_from(results) {
        Ok([(result, result_type)]) => Ok(Events { progress, result, result_type }),
        Err(results) => Err(results.len()),
    }
}

fn is_event(message: &MessageDescriptor) -> bool {
    matches!(message.full_name(), "drawbridge.mcp.v1.LogMessage" | "drawbridge.mcp.v1.InputRequired")
}

impl Events {
    fn read(&self, mut message: DynamicMessage) -> Option<Event> {
        if message.has_field(&self.result) {
            let result = message.take_field(&self.result)?;
            return match result {
                prost_reflect::Value::Message(result) => Some(Event::Result(result)),
                _ => None,
            };
        }
        let field = self.progress.as_ref().filter(|field| message.has_field(field))?;
        let progress = message.get_field(field).as_message()?.transcode_to().ok()?;
        Some(Event::Progress(progress))
    }
}
