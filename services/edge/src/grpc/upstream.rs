//! Calls a tool service: any RPC, by its descriptor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use drawbridge_proto::mcp::v1 as mcp;
use drawbridge_sdk::{
    BalancedChannel, CallContext, client_span,
    contract::PolicyForm,
    dynamic::{BytesCodec, MessageType, WireMessage, field_of},
    end_client_span, with_transaction_token,
};
use http::uri::PathAndQuery;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use tonic::{Code, Status, Streaming};
use tracing::{Instrument as _, Span};

use crate::traffic::cache::{Rule, Tag};

pub(crate) use self::encoded::EncodedMessage;

mod encoded;
mod status;

const PROGRESS: &str = "drawbridge.mcp.v1.Progress";
const LOG: &str = "drawbridge.mcp.v1.LogMessage";
const INPUT_REQUIRED: &str = "drawbridge.mcp.v1.InputRequired";
const INPUT_RESPONSES: &str = "drawbridge.mcp.v1.InputResponses";
/// The largest answer that is taken from a tool service, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One RPC of one tool service, and how to read what comes back.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    channel: BalancedChannel,
    path: PathAndQuery,
    input: MessageDescriptor,
    /// As policies read what it takes.
    pub(crate) policy_form: PolicyForm,
    /// The message that is the result.
    result: Arc<MessageType>,
    answers: Answers,
    /// The request's field for what the client answered, where there is one.
    responses: Option<FieldDescriptor>,
    pub(crate) timeout: Duration,
    /// Whether a call may be repeated when nobody knows whether it was carried out.
    pub(crate) idempotent: bool,
    /// How its results are kept, where they may be.
    pub(crate) cache: Option<Arc<Rule>>,
    /// What of other results a call makes outdated.
    pub(crate) invalidates: Vec<Tag>,
}

/// How the RPC answers. Its parts are told apart by their message types.
#[derive(Clone, Debug)]
enum Answers {
    /// With one message, which may ask for input instead.
    Unary { input_required: Option<u32> },
    /// With events, of which one field is the result.
    Stream(Events),
    /// With messages, each of which is a result.
    Watch,
}

/// The fields of a streamed event, by their numbers.
#[derive(Clone, Copy, Debug)]
struct Events {
    progress: Option<u32>,
    log: Option<u32>,
    input_required: Option<u32>,
    result: u32,
}

/// What a tool service tells of a call under way.
#[derive(Debug)]
pub(crate) enum Event {
    /// How far it is.
    Progress(mcp::Progress),
    /// A line for the client.
    Log(mcp::LogMessage),
    /// It cannot go on without answers.
    InputRequired(mcp::InputRequired),
    /// How it ended.
    Result(WireMessage),
}

impl Target {
    /// The target that is `method` behind `channel`.
    ///
    /// # Errors
    /// The number of result fields, when a streamed event does not have exactly one.
    pub(crate) fn new(
        channel: BalancedChannel,
        method: &MethodDescriptor,
        timeout: Duration,
    ) -> Result<Self, usize> {
        let (input, output) = (method.input(), method.output());
        let (answers, result) = if method.is_server_streaming() {
            let (events, result) = events(&output)?;
            (Answers::Stream(events), result)
        } else {
            (Answers::Unary { input_required: number_of_type(&output, INPUT_REQUIRED) }, output)
        };
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        Ok(Self {
            channel,
            // INVARIANT: protobuf names are letters, digits, underscores and dots.
            path: path.parse().unwrap_or_else(|_| PathAndQuery::from_static("/")),
            responses: field_of_type(&input, INPUT_RESPONSES),
            policy_form: PolicyForm::of(&input),
            input,
            result: Arc::new(MessageType::new(result)),
            answers,
            timeout,
            idempotent: false,
            cache: None,
            invalidates: Vec::new(),
        })
    }

    /// The target that is `method`, each message of whose stream stands for itself.
    pub(crate) fn watch(
        channel: BalancedChannel,
        method: &MethodDescriptor,
        timeout: Duration,
    ) -> Self {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        Self {
            channel,
            // INVARIANT: protobuf names are letters, digits, underscores and dots.
            path: path.parse().unwrap_or_else(|_| PathAndQuery::from_static("/")),
            input: method.input(),
            policy_form: PolicyForm::of(&method.input()),
            result: Arc::new(MessageType::new(method.output())),
            answers: Answers::Watch,
            responses: None,
            timeout,
            idempotent: true,
            cache: None,
            invalidates: Vec::new(),
        }
    }

    /// Takes out what only the edge may put in.
    pub(crate) fn clear_responses(&self, message: &mut DynamicMessage) {
        if let Some(field) = &self.responses {
            message.clear_field(field);
        }
    }

    /// Whether what the client answered goes into a request, so that it is not whole before.
    pub(crate) fn takes_responses(&self) -> bool {
        self.responses.is_some()
    }

    /// The request with what the client answered. A method that has no place for answers gets none.
    pub(crate) fn with_responses(
        &self,
        request: &EncodedMessage,
        responses: &mcp::InputResponses,
    ) -> EncodedMessage {
        let Some((field, Kind::Message(descriptor))) =
            self.responses.as_ref().map(|field| (field, field.kind()))
        else {
            return request.clone();
        };
        let (mut message, mut value) = (request.message().clone(), DynamicMessage::new(descriptor));
        // INVARIANT: the field is of this very type; a service with an older copy of it keeps unknown fields.
        if value.transcode_from(responses).is_ok() {
            message.set_field(field, Value::Message(value));
        }
        EncodedMessage::new(message)
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
    pub(crate) fn result(&self) -> &Arc<MessageType> {
        &self.result
    }

    /// Begins a call. It ends when its result is there, its deadline passes, or it is dropped.
    ///
    /// # Errors
    /// The service's status.
    pub(crate) async fn begin(
        &self,
        context: &CallContext,
        token: &str,
        message: &EncodedMessage,
    ) -> Result<Answering, Status> {
        let span = client_span(self.rpc());
        let deadline = context.deadline.min(Instant::now() + self.timeout);
        let context = CallContext { deadline, ..context.clone() };
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
        message: &EncodedMessage,
    ) -> Result<Answer, Status> {
        let request = with_transaction_token(context.outgoing(message.bytes()), token)?;
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        client
            .ready()
            .await
            .map_err(|_| Status::unavailable("the tool service does not answer"))?;
        let (path, result) = (self.path.clone(), Arc::clone(&self.result));
        Ok(match self.answers {
            Answers::Unary { input_required } => {
                let response = client.unary(request, path, BytesCodec).await?;
                let message = Some(response.into_inner());
                Answer::Unary { message, input_required, result }
            }
            Answers::Stream(events) => {
                let response = client.server_streaming(request, path, BytesCodec).await?;
                Answer::Stream(Box::new(response.into_inner()), events, result)
            }
            Answers::Watch => {
                let response = client.server_streaming(request, path, BytesCodec).await?;
                Answer::Watch(Box::new(response.into_inner()), result)
            }
        })
    }
}

/// A call whose result is still to come.
pub(crate) struct Answering {
    answer: Answer,
    deadline: Instant,
    ended: Ended,
}

enum Answer {
    Unary { message: Option<Bytes>, input_required: Option<u32>, result: Arc<MessageType> },
    Stream(Box<Streaming<Bytes>>, Events, Arc<MessageType>),
    Watch(Box<Streaming<Bytes>>, Arc<MessageType>),
}

impl Answering {
    /// What comes next: progress, any number of times, and then the result.
    ///
    /// # Errors
    /// The service's status, or `INTERNAL` when its stream ends without a result.
    pub(crate) async fn next(&mut self) -> Result<Event, Status> {
        let event = within(self.deadline, self.answer.next()).await;
        match &event {
            Ok(Event::Progress(_) | Event::Log(_)) => {}
            Ok(Event::Result(_) | Event::InputRequired(_)) => self.ended.code = Code::Ok,
            Err(status) => self.ended.code = status.code(),
        }
        event
    }
}

impl Answer {
    async fn next(&mut self) -> Result<Event, Status> {
        let without_result = || Status::internal("the stream ended without a result");
        match self {
            Self::Unary { message, input_required, result } => {
                let message = message.take().ok_or_else(without_result)?;
                let asked = read(&message, *input_required)?;
                let result = || Event::Result(WireMessage::new(Arc::clone(result), message));
                Ok(asked.map_or_else(result, Event::InputRequired))
            }
            Self::Watch(stream, result) => {
                let message = stream.message().await?;
                let message = message.ok_or_else(|| Status::unavailable("the stream ended"))?;
                Ok(Event::Result(WireMessage::new(Arc::clone(result), message)))
            }
            Self::Stream(stream, events, result) => loop {
                let message = stream.message().await?.ok_or_else(without_result)?;
                if let Some(event) = events.read(&message, result)? {
                    return Ok(event);
                }
            },
        }
    }
}

async fn within<T>(
    deadline: Instant,
    task: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout_at(deadline.into(), task)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call took too long")))
        .map_err(|status| status::readable(lost(status)))
}

/// A connection that broke under a call is a service that is not there. A status that came from the service has
/// no source; one that stands for a broken transport has.
fn lost(status: Status) -> Status {
    let is_broken = matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
    if is_broken && std::error::Error::source(&status).is_some() {
        tracing::debug!(code = ?status.code(), message = status.message(), "the connection was lost");
        return Status::unavailable("the connection to the tool service was lost");
    }
    status
}

/// Notes in its span how a call ended, also when nobody waits any more.
struct Ended {
    span: Span,
    code: Code,
}

impl Drop for Ended {
    fn drop(&mut self) {
        end_client_span(&self.span, self.code);
    }
}

/// The field of a contract type in a message, if it has one.
fn field_of_type(message: &MessageDescriptor, full_name: &str) -> Option<FieldDescriptor> {
    message.fields().find(|field| {
        !field.is_list()
            && matches!(field.kind(), Kind::Message(kind) if kind.full_name() == full_name)
    })
}

fn number_of_type(message: &MessageDescriptor, full_name: &str) -> Option<u32> {
    field_of_type(message, full_name).map(|field| field.number())
}

/// Tells the fields of a streamed event apart, and what its result is.
fn events(event: &MessageDescriptor) -> Result<(Events, MessageDescriptor), usize> {
    let mut results = Vec::new();
    for field in event.fields() {
        match field.kind() {
            Kind::Message(message)
                if [PROGRESS, LOG, INPUT_REQUIRED].contains(&message.full_name()) => {}
            Kind::Message(message) if !field.is_list() => results.push((field, message)),
            _ => {}
        }
    }
    let [(result, result_type)] = <[_; 1]>::try_from(results).map_err(|results| results.len())?;
    let events = Events {
        progress: number_of_type(event, PROGRESS),
        log: number_of_type(event, LOG),
        input_required: number_of_type(event, INPUT_REQUIRED),
        result: result.number(),
    };
    Ok((events, result_type))
}

impl Events {
    /// The event that a message is; nothing when it is one that this build does not know.
    fn read(self, message: &Bytes, result: &Arc<MessageType>) -> Result<Option<Event>, Status> {
        if let Some(found) = field_of(message, self.result).map_err(unlike_contract)? {
            return Ok(Some(Event::Result(WireMessage::new(Arc::clone(result), found))));
        }
        if let Some(progress) = read(message, self.progress)? {
            return Ok(Some(Event::Progress(progress)));
        }
        if let Some(line) = read(message, self.log)? {
            return Ok(Some(Event::Log(line)));
        }
        Ok(read(message, self.input_required)?.map(Event::InputRequired))
    }
}

/// Reads a field that is set, as this build's own type.
fn read<M: prost::Message + Default>(
    message: &Bytes,
    number: Option<u32>,
) -> Result<Option<M>, Status> {
    let Some(number) = number else { return Ok(None) };
    let found = field_of(message, number).map_err(unlike_contract)?;
    found.map(|found| M::decode(found).map_err(unlike_contract)).transpose()
}

/// The service's bytes are no message of its contract.
pub(crate) fn unlike_contract(_: prost::DecodeError) -> Status {
    Status::internal("the tool service's answer does not fit its contract")
}
