//! What replicas say to one another.

use std::sync::Arc;

use drawbridge_proto::auth::v1::Operation;
use prost::Message as _;
use serde_json::Value;

use crate::{
    admission::ID_BYTES_MAX,
    admission::authorizer::Reauthorizer,
    mcp::{
        events::Reader,
        session::{Session, SessionId, Sessions},
    },
};

/// What a client names of a session that is not on this replica.
#[derive(Debug)]
pub(in crate::mcp) enum Subject {
    /// A question to the client, by its id, and the client's answer.
    Question(SessionId, i64, Result<Value, Value>),
    /// A request of the client in progress, by its id: it is to be cancelled.
    Running(SessionId, Value),
    /// A stream after one of its events.
    Stream(SessionId, u64, u64),
}

/// A message between replicas.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    /// The replica that sends it.
    #[prost(fixed64, tag = "1")]
    pub(super) from: u64,
    /// The request that it belongs to.
    #[prost(fixed64, tag = "2")]
    pub(super) number: u64,
    #[prost(oneof = "Kind", tags = "3, 4, 5, 6, 7")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    /// Who has this?
    #[prost(message, tag = "3")]
    Find(Named),
    /// Do with it what its client wants, who may.
    #[prost(message, tag = "4")]
    Do(Named),
    /// It is here, or it is done.
    #[prost(message, tag = "5")]
    Found(Found),
    #[prost(message, tag = "6")]
    Events(Events),
    /// The events have been passed on. False: there is no reader any more.
    #[prost(bool, tag = "7")]
    Passed(bool),
}

/// A subject, for another replica.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Named {
    #[prost(bytes = "vec", tag = "1")]
    session: Vec<u8>,
    #[prost(int64, optional, tag = "2")]
    question: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    result: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    error: Option<Vec<u8>>,
    /// The id of a request in progress, as JSON.
    #[prost(bytes = "vec", optional, tag = "5")]
    running: Option<Vec<u8>>,
    #[prost(fixed64, optional, tag = "6")]
    pub(super) stream: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    last: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Found {
    /// What its client must be allowed: an operation.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(super) operation: Option<Vec<u8>>,
    /// The stream of the call.
    #[prost(fixed64, tag = "2")]
    pub(super) stream: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Events {
    #[prost(message, repeated, tag = "1")]
    pub(super) events: Vec<Numbered>,
    /// Whether there are no more.
    #[prost(bool, tag = "2")]
    pub(super) is_end: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Numbered {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) message: bytes::Bytes,
    /// What its reader must be allowed besides: an operation.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) operation: Option<Vec<u8>>,
}

impl From<&Subject> for Named {
    fn from(subject: &Subject) -> Self {
        let text = |json: &Value| Some(json.to_string().into_bytes());
        match subject {
            Subject::Question(session, question, answer) => Self {
                session: session.bytes().to_vec(),
                question: Some(*question),
                result: answer.as_ref().ok().and_then(text),
                error: answer.as_ref().err().and_then(text),
                ..Self::default()
            },
            Subject::Running(session, id) => {
                Self { session: session.bytes().to_vec(), running: text(id), ..Self::default() }
            }
            Subject::Stream(session, stream, last) => Self {
                session: session.bytes().to_vec(),
                stream: Some(*stream),
                last: Some(*last),
                ..Self::default()
            },
        }
    }
}

pub(super) fn operation(needs: &Reauthorizer) -> Vec<u8> {
    needs.operation().encode_to_vec()
}

/// The operation that another replica names.
pub(super) fn decoded(operation: &[u8]) -> Option<Arc<Operation>> {
    Operation::decode(operation).ok().map(Arc::new)
}

impl Named {
    /// What it takes to find it. None: no request has such an id.
    pub(super) fn without_answer(self) -> Option<Self> {
        let named = Self { result: None, error: None, ..self };
        named.running.as_ref().is_none_or(|id| id.len() <= ID_BYTES_MAX).then_some(named)
    }

    /// Whether it is a stream after one of its events.
    pub(super) fn is_stream(&self) -> bool {
        self.last.is_some()
    }

    fn session(&self, sessions: &Sessions) -> Option<Arc<Session>> {
        sessions.get(SessionId::from_bytes(self.session.as_slice())?)
    }

    fn request(&self) -> Option<Value> {
        serde_json::from_slice(self.running.as_deref()?).ok()
    }

    /// Says that this is here. None: it is not.
    pub(super) fn locate(&self, sessions: &Sessions) -> Option<Found> {
        let session = self.session(sessions)?;
        if let Some(question) = self.question {
            let needs = session.asked(&question.into())?;
            return Some(Found { operation: Some(operation(&needs)), stream: 0 });
        }
        if let Some(id) = self.request() {
            let running = session.running(&id)?;
            return Some(Found {
                operation: Some(operation(&running.needs)),
                stream: running.stream,
            });
        }
        let (stream, needs) = session.stream(self.stream?)?;
        let found = Found { operation: needs.as_ref().map(operation), stream: self.stream? };
        stream.has(self.last?).then_some(found)
    }

    /// Does what the client wants with this: answers the question, or cancels the request.
    pub(super) fn apply(&self, sessions: &Sessions) -> Option<Found> {
        let session = self.session(sessions)?;
        if let Some(question) = self.question {
            let json = |text: &Option<Vec<u8>>| serde_json::from_slice(text.as_deref()?).ok();
            let answer = json(&self.result).ok_or_else(|| json(&self.error).unwrap_or_default());
            session.answer(&question.into(), answer);
            return Some(Found::default());
        }
        // Not another one of the same id, which may need something else.
        let running = session.running(&self.request()?)?;
        (Some(running.stream) == self.stream).then(|| running.cancel.cancel())?;
        Some(Found::default())
    }

    /// A reader of the stream that is to be taken up again. None: it is no stream, or not here.
    pub(super) fn reader(&self, sessions: &Sessions) -> Option<Reader> {
        let last = self.last?;
        let (stream, _) = self.session(sessions)?.stream(self.stream?)?;
        stream.read(Some(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_replicas_are_sent_neither_what_a_client_answers_nor_an_id_that_no_request_has() {
        let answered =
            Named { question: Some(1), result: Some(vec![b'1'; 4096]), ..Named::default() };
        let sent = answered.without_answer();
        assert_eq!(sent, Some(Named { question: Some(1), ..Named::default() }));
        let id = |length| Named { running: Some(vec![b'1'; length]), ..Named::default() };
        assert!(id(ID_BYTES_MAX).without_answer().is_some());
        assert!(id(ID_BYTES_MAX + 1).without_answer().is_none());
    }
}
