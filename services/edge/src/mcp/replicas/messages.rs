//! Messages between replicas.

use std::sync::Arc;

use drawbridge_proto::auth::v1::Operation;
use prost::Message as _;
use serde_json::Value;

use crate::{
    admitted::ID_BYTES_MAX,
    authorizer::Reauthorizer,
    mcp::{
        events::EventReader,
        session::{Session, SessionId, SessionRegistry},
    },
};

/// A part of a session that may be on another replica.
#[derive(Debug)]
pub(in crate::mcp) enum RemoteItem {
    /// The client's response to a request with this id.
    Response(SessionId, i64, Result<Value, Value>),
    /// The cancellation of the client's request with this id.
    Cancellation(SessionId, Value),
    /// A stream, after this event.
    Stream(SessionId, u64, u64),
}

/// A message between replicas.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ReplicaMessage {
    /// The replica that sends the message.
    #[prost(fixed64, tag = "1")]
    pub(super) from: u64,
    /// Identifies a request and its replies.
    #[prost(fixed64, tag = "2")]
    pub(super) number: u64,
    #[prost(oneof = "Payload", tags = "3, 4, 5, 6, 7")]
    pub(super) payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Payload {
    /// Asks which replica has the item.
    #[prost(message, tag = "3")]
    Find(ItemRef),
    /// Applies what the client requested; the sender has authorized it.
    #[prost(message, tag = "4")]
    Apply(ItemRef),
    /// The sender has the item, or has applied the request.
    #[prost(message, tag = "5")]
    Located(Located),
    #[prost(message, tag = "6")]
    Events(EventBatch),
    /// The events have been delivered. False: the reader is closed.
    #[prost(bool, tag = "7")]
    Delivered(bool),
}

/// A [`RemoteItem`] in a message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ItemRef {
    #[prost(bytes = "vec", tag = "1")]
    session: Vec<u8>,
    #[prost(int64, optional, tag = "2")]
    request: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    result: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    error: Option<Vec<u8>>,
    /// The id of a request in progress, as JSON.
    #[prost(bytes = "vec", optional, tag = "5")]
    running_id: Option<Vec<u8>>,
    #[prost(fixed64, optional, tag = "6")]
    pub(super) stream: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    last: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Located {
    /// The operation that the client must be permitted to perform.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(super) operation: Option<Vec<u8>>,
    /// The stream of the call.
    #[prost(fixed64, tag = "2")]
    pub(super) stream: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EventBatch {
    #[prost(message, repeated, tag = "1")]
    pub(super) events: Vec<NumberedEvent>,
    /// Whether these are the last events.
    #[prost(bool, tag = "2")]
    pub(super) is_end: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NumberedEvent {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) message: bytes::Bytes,
    /// The operation that the reader must be permitted to perform in addition.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) operation: Option<Vec<u8>>,
}

impl From<&RemoteItem> for ItemRef {
    fn from(item: &RemoteItem) -> Self {
        let text = |json: &Value| Some(json.to_string().into_bytes());
        match item {
            RemoteItem::Response(session, request, response) => Self {
                session: session.bytes().to_vec(),
                request: Some(*request),
                result: response.as_ref().ok().and_then(text),
                error: response.as_ref().err().and_then(text),
                ..Self::default()
            },
            RemoteItem::Cancellation(session, id) => {
                Self { session: session.bytes().to_vec(), running_id: text(id), ..Self::default() }
            }
            RemoteItem::Stream(session, stream, last) => Self {
                session: session.bytes().to_vec(),
                stream: Some(*stream),
                last: Some(*last),
                ..Self::default()
            },
        }
    }
}

pub(super) fn encode_operation(authorization: &Reauthorizer) -> Vec<u8> {
    authorization.operation().encode_to_vec()
}

/// Decodes the operation in a message.
pub(super) fn decode_operation(operation: &[u8]) -> Option<Arc<Operation>> {
    Operation::decode(operation).ok().map(Arc::new)
}

impl ItemRef {
    /// The item without the client's response, to find it. `None`: its request id is too long.
    pub(super) fn without_response(self) -> Option<Self> {
        let item = Self { result: None, error: None, ..self };
        item.running_id.as_ref().is_none_or(|id| id.len() <= ID_BYTES_MAX).then_some(item)
    }

    /// Whether the item is a stream.
    pub(super) fn is_stream(&self) -> bool {
        self.last.is_some()
    }

    fn session(&self, sessions: &SessionRegistry) -> Option<Arc<Session>> {
        sessions.get(SessionId::from_bytes(self.session.as_slice())?)
    }

    fn parse_running_id(&self) -> Option<Value> {
        serde_json::from_slice(self.running_id.as_deref()?).ok()
    }

    /// Locates the item on this replica. `None`: it is not here.
    pub(super) fn locate(&self, sessions: &SessionRegistry) -> Option<Located> {
        let session = self.session(sessions)?;
        if let Some(request) = self.request {
            let authorization = session.pending_authorization(&request.into())?;
            return Some(Located { operation: Some(encode_operation(&authorization)), stream: 0 });
        }
        if let Some(id) = self.parse_running_id() {
            let running = session.running_request(&id)?;
            return Some(Located {
                operation: Some(encode_operation(&running.authorization)),
                stream: running.stream,
            });
        }
        let (stream, authorization) = session.stream(self.stream?)?;
        let located = Located {
            operation: authorization.as_ref().map(encode_operation),
            stream: self.stream?,
        };
        stream.has(self.last?).then_some(located)
    }

    /// Applies what the client requested: resolves its request, or cancels it.
    pub(super) fn apply(&self, sessions: &SessionRegistry) -> Option<Located> {
        let session = self.session(sessions)?;
        if let Some(request) = self.request {
            let json = |text: &Option<Vec<u8>>| serde_json::from_slice(text.as_deref()?).ok();
            let response = json(&self.result).ok_or_else(|| json(&self.error).unwrap_or_default());
            session.resolve(&request.into(), response);
            return Some(Located::default());
        }
        // Another request of the same id may need another permission.
        let running = session.running_request(&self.parse_running_id()?)?;
        (Some(running.stream) == self.stream).then(|| running.cancel.cancel())?;
        Some(Located::default())
    }

    /// Opens a reader of the stream to resume. `None`: the item is not a stream, or not here.
    pub(super) fn open_reader(&self, sessions: &SessionRegistry) -> Option<EventReader> {
        let last = self.last?;
        let (stream, _) = self.session(sessions)?.stream(self.stream?)?;
        stream.open_reader(Some(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_contains_neither_a_clients_response_nor_an_id_that_is_too_long() {
        let response =
            ItemRef { request: Some(1), result: Some(vec![b'1'; 4096]), ..ItemRef::default() };
        let sent = response.without_response();
        assert_eq!(sent, Some(ItemRef { request: Some(1), ..ItemRef::default() }));
        let id = |length| ItemRef { running_id: Some(vec![b'1'; length]), ..ItemRef::default() };
        assert!(id(ID_BYTES_MAX).without_response().is_some());
        assert!(id(ID_BYTES_MAX + 1).without_response().is_none());
    }
}
