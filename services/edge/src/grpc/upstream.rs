//! Calls any RPC of a tool service by its descriptor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use drawbridge_contract::{
    PolicyForm,
    dynamic::{BytesCodec, MessageType, WireMessage, field_of},
};
use drawbridge_proto::mcp::v1 as mcp;
use drawbridge_transport::{BalancedChannel, CallContext, end_client_span, with_transaction_token};
use http::uri::PathAndQuery;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use tonic::{Code, Status, Streaming};
use tracing::{Instrument as _, Span};

pub(crate) use self::encoded::EncodedMessage;

mod encoded;
mod status;

const PROGRESS: &str = "drawbridge.mcp.v1.Progress";
const LOG: &str = "drawbridge.mcp.v1.LogMessage";
const INPUT_REQUIRED: &str = "drawbridge.mcp.v1.InputRequired";
const INPUT_RESPONSES: &str = "drawbridge.mcp.v1.InputResponses";
/// The largest response message of a tool service, in bytes.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One RPC of one tool service, and how to read its responses.
#[derive(Clone, Debug)]
pub(crate) struct RpcTarget {
    channel: BalancedChannel,
    path: PathAndQuery,
    input: MessageDescriptor,
    /// The form of the request that policies read.
    pub(crate) policy_form: PolicyForm,
    /// The type of the result message.
    result: Arc<MessageType>,
    response_kind: ResponseKind,
    /// The field of the request for the client's input responses, if there is one.
    responses_field: Option<FieldDescriptor>,
    pub(crate) timeout: Duration,
    /// Whether a call may be repeated when it is unknown whether the service carried it out.
    pub(crate) idempotent: bool,
}

/// How the RPC responds. The parts of a response are identified by their message types.
#[derive(Clone, Debug)]
enum ResponseKind {
    /// With one message: the result, or a request for input.
    Unary { input_required: Option<u32> },
    /// With a stream of events, one field of which is the result.
    Stream(EventFields),
    /// With a stream of results.
    Watch,
}

/// The field numbers of a streamed event.
#[derive(Clone, Copy, Debug)]
struct EventFields {
    progress: Option<u32>,
    log: Option<u32>,
    input_required: Option<u32>,
    result: u32,
}

/// An event of a call.
#[derive(Debug)]
pub(crate) enum CallEvent {
    /// The progress of the call.
    Progress(mcp::Progress),
    /// A log message for the client.
    Log(mcp::LogMessage),
    /// The service needs input from the client to continue.
    InputRequired(mcp::InputRequired),
    /// The result.
    Result(WireMessage),
}

impl RpcTarget {
    /// The target for `method` on `channel`.
    ///
    /// # Errors
    /// The number of result fields of a streamed event, unless it is one.
    pub(crate) fn new(
        channel: BalancedChannel,
        method: &MethodDescriptor,
        timeout: Duration,
    ) -> Result<Self, usize> {
        let (input, output) = (method.input(), method.output());
        let (response_kind, result) = if method.is_server_streaming() {
            let (fields, result) = event_fields(&output)?;
            (ResponseKind::Stream(fields), result)
        } else {
            (
                ResponseKind::Unary { input_required: number_of_type(&output, INPUT_REQUIRED) },
                output,
            )
        };
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        Ok(Self {
            channel,
            // INVARIANT: protobuf names are letters, digits, underscores and dots.
            path: path.parse().unwrap_or_else(|_| PathAndQuery::from_static("/")),
            responses_field: field_of_type(&input, INPUT_RESPONSES),
            policy_form: PolicyForm::for_message(&input),
            input,
            result: Arc::new(MessageType::new(result)),
            response_kind,
            timeout,
            idempotent: false,
        })
    }

    /// The target for `method`, whose stream consists of results.
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
            policy_form: PolicyForm::for_message(&method.input()),
            result: Arc::new(MessageType::new(method.output())),
            response_kind: ResponseKind::Watch,
            responses_field: None,
            timeout,
            idempotent: true,
        }
    }

    /// Clears the field that only the edge may set.
    pub(crate) fn clear_responses(&self, message: &mut DynamicMessage) {
        if let Some(field) = &self.responses_field {
            message.clear_field(field);
        }
    }

    /// Whether the request has a field for input responses, so that it may change during the call.
    pub(crate) fn has_responses_field(&self) -> bool {
        self.responses_field.is_some()
    }

    /// The request with the client's input responses, if it has a field for them.
    pub(crate) fn with_responses(
        &self,
        request: &EncodedMessage,
        responses: &mcp::InputResponses,
    ) -> EncodedMessage {
        let Some((field, Kind::Message(descriptor))) =
            self.responses_field.as_ref().map(|field| (field, field.kind()))
        else {
            return request.clone();
        };
        let (mut message, mut value) = (request.message().clone(), DynamicMessage::new(descriptor));
        // INVARIANT: the field has this type. An older copy of it in the service retains unknown
        // fields.
        if value.transcode_from(responses).is_ok() {
            message.set_field(field, Value::Message(value));
        }
        EncodedMessage::new(message)
    }

    /// The RPC, `package.Service/Method`.
    pub(crate) fn rpc(&self) -> &str {
        self.path.path().trim_start_matches('/')
    }

    pub(crate) fn input(&self) -> MessageDescriptor {
        self.input.clone()
    }

    /// The type of the result message.
    pub(crate) fn result(&self) -> &Arc<MessageType> {
        &self.result
    }

    /// Begins a call in this span, which `client_span` made. It ends with its result, at its
    /// deadline, or when it is dropped.
    ///
    /// # Errors
    /// The service's status.
    pub(crate) async fn begin(
        &self,
        span: Span,
        context: &CallContext,
        token: &str,
        message: &EncodedMessage,
    ) -> Result<OngoingCall, Status> {
        let deadline = context.deadline.min(Instant::now() + self.timeout);
        let context = CallContext { deadline, ..context.clone() };
        let mut span_end = SpanEnd { span: span.clone(), code: Code::Cancelled };
        let call = within(deadline, self.send(&context, token, message)).instrument(span);
        match call.await {
            Ok(reader) => Ok(OngoingCall { reader, deadline, span_end }),
            Err(status) => {
                span_end.code = status.code();
                Err(status)
            }
        }
    }

    async fn send(
        &self,
        context: &CallContext,
        token: &str,
        message: &EncodedMessage,
    ) -> Result<ResponseReader, Status> {
        let request = with_transaction_token(context.outgoing(message.bytes()), token)?;
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(RESPONSE_BYTES_MAX);
        client.ready().await.map_err(|_| Status::unavailable("the tool service is unavailable"))?;
        let (path, result) = (self.path.clone(), Arc::clone(&self.result));
        Ok(match self.response_kind {
            ResponseKind::Unary { input_required } => {
                let response = client.unary(request, path, BytesCodec).await?;
                let message = Some(response.into_inner());
                ResponseReader::Unary { message, input_required, result }
            }
            ResponseKind::Stream(events) => {
                let response = client.server_streaming(request, path, BytesCodec).await?;
                ResponseReader::Stream(Box::new(response.into_inner()), events, result)
            }
            ResponseKind::Watch => {
                let response = client.server_streaming(request, path, BytesCodec).await?;
                ResponseReader::Watch(Box::new(response.into_inner()), result)
            }
        })
    }
}

/// A call under way.
pub(crate) struct OngoingCall {
    reader: ResponseReader,
    deadline: Instant,
    span_end: SpanEnd,
}

enum ResponseReader {
    Unary { message: Option<Bytes>, input_required: Option<u32>, result: Arc<MessageType> },
    Stream(Box<Streaming<Bytes>>, EventFields, Arc<MessageType>),
    Watch(Box<Streaming<Bytes>>, Arc<MessageType>),
}

impl OngoingCall {
    /// The next event: progress and log messages, and finally the result or a request for input.
    ///
    /// # Errors
    /// The service's status, or `INTERNAL` when its stream ends without a result.
    pub(crate) async fn next(&mut self) -> Result<CallEvent, Status> {
        let event = within(self.deadline, self.reader.next()).await;
        match &event {
            Ok(CallEvent::Progress(_) | CallEvent::Log(_)) => {}
            Ok(CallEvent::Result(_) | CallEvent::InputRequired(_)) => self.span_end.code = Code::Ok,
            Err(status) => self.span_end.code = status.code(),
        }
        event
    }
}

impl ResponseReader {
    async fn next(&mut self) -> Result<CallEvent, Status> {
        let without_result = || Status::internal("the stream ended without a result");
        match self {
            Self::Unary { message, input_required, result } => {
                let message = message.take().ok_or_else(without_result)?;
                let input = read(&message, *input_required)?;
                let result = || CallEvent::Result(WireMessage::new(Arc::clone(result), message));
                Ok(input.map_or_else(result, CallEvent::InputRequired))
            }
            Self::Watch(stream, result) => {
                let message = stream.message().await?;
                let message = message.ok_or_else(|| Status::unavailable("the stream ended"))?;
                Ok(CallEvent::Result(WireMessage::new(Arc::clone(result), message)))
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
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call exceeded its deadline")))
        .map_err(|status| status::with_message(connection_lost(status)))
}

/// Turns a broken connection into `UNAVAILABLE`. A status from the service has no source; one for a
/// broken transport has.
fn connection_lost(status: Status) -> Status {
    let is_broken = matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
    if is_broken && std::error::Error::source(&status).is_some() {
        tracing::debug!(code = ?status.code(), detail = status.message(), "connection lost");
        return Status::unavailable("the connection to the tool service was lost");
    }
    status
}

/// Ends the span of a call with its status code, also when the call is dropped.
struct SpanEnd {
    span: Span,
    code: Code,
}

impl Drop for SpanEnd {
    fn drop(&mut self) {
        end_client_span(&self.span, self.code);
    }
}

/// The field of this type in a message, if it has one.
fn field_of_type(message: &MessageDescriptor, full_name: &str) -> Option<FieldDescriptor> {
    message.fields().find(|field| {
        !field.is_list()
            && matches!(field.kind(), Kind::Message(kind) if kind.full_name() == full_name)
    })
}

fn number_of_type(message: &MessageDescriptor, full_name: &str) -> Option<u32> {
    field_of_type(message, full_name).map(|field| field.number())
}

/// The fields of a streamed event, and the type of its result.
fn event_fields(event: &MessageDescriptor) -> Result<(EventFields, MessageDescriptor), usize> {
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
    let events = EventFields {
        progress: number_of_type(event, PROGRESS),
        log: number_of_type(event, LOG),
        input_required: number_of_type(event, INPUT_REQUIRED),
        result: result.number(),
    };
    Ok((events, result_type))
}

impl EventFields {
    /// Reads an event. `None` for a kind of event that this build does not know.
    fn read(self, message: &Bytes, result: &Arc<MessageType>) -> Result<Option<CallEvent>, Status> {
        if let Some(found) = field_of(message, self.result).map_err(contract_mismatch)? {
            return Ok(Some(CallEvent::Result(WireMessage::new(Arc::clone(result), found))));
        }
        if let Some(progress) = read(message, self.progress)? {
            return Ok(Some(CallEvent::Progress(progress)));
        }
        if let Some(log) = read(message, self.log)? {
            return Ok(Some(CallEvent::Log(log)));
        }
        Ok(read(message, self.input_required)?.map(CallEvent::InputRequired))
    }
}

/// Reads a field, if it is set, as the type that this build knows.
fn read<M: prost::Message + Default>(
    message: &Bytes,
    number: Option<u32>,
) -> Result<Option<M>, Status> {
    let Some(number) = number else { return Ok(None) };
    let found = field_of(message, number).map_err(contract_mismatch)?;
    found.map(|found| M::decode(found).map_err(contract_mismatch)).transpose()
}

/// The status for bytes that are not a message of the service's contract.
pub(crate) fn contract_mismatch(_: prost::DecodeError) -> Status {
    Status::internal("the tool service's response does not match its contract")
}
