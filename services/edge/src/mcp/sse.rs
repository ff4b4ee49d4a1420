//! Event streams over HTTP.

use std::{convert::Infallible, ops::RangeInclusive, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{FutureExt as _, future::BoxFuture, stream};
use http::{HeaderName, HeaderValue, header};
use tokio_util::sync::CancellationToken;

use super::{
    events::{EventReader, ReadOutcome},
    revision::ProtocolRevision,
    session::{Session, Slot},
};
use crate::{
    authorizer::StreamLease,
    budget::{CallerBudget, UnreadResponse},
    refusal::Refusal,
};

/// Keeps an idle connection open, and shows a client that its stream has started. No empty line
/// follows: parsers that remember the last event's id would dispatch an empty event (httpx-sse, and
/// with it version 1 of the Python SDK, which parses that as a message).
const COMMENT: Bytes = Bytes::from_static(b":\n");
/// When clients reconnect to another replica, in milliseconds: not all at once.
const RECONNECT_MS: RangeInclusive<u64> = 250..=2_000;
/// Makes proxies forward events without buffering.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The body of an event stream.
pub(super) struct EventBody {
    pub(super) reader: EventReader,
    /// The work that produces the events, if it ends with the connection.
    pub(super) work: Option<BoxFuture<'static, ()>>,
    pub(super) permission: SendPermission,
    pub(super) keep_alive: Duration,
    /// The message that a stream sends when it ends before its response.
    pub(super) last: Option<Bytes>,
    /// Ends a subscription when the edge accepts no more work: its client reconnects.
    pub(super) draining: Option<CancellationToken>,
    /// The first bytes, so that a client can resume the stream before its first event.
    pub(super) first: Option<Bytes>,
    /// The session that the stream keeps in use.
    pub(super) session: Option<Arc<Session>>,
    /// The budget for events that are delivered again.
    pub(super) budget: Option<CallerBudget>,
    pub(super) _slot: Option<Slot>,
    pub(super) is_ended: bool,
}

/// The permission to send.
#[derive(Debug)]
pub(super) enum SendPermission {
    /// The request was admitted.
    Admitted,
    /// The stream ends with its lease.
    Leased(StreamLease),
    /// As `Leased`, and nothing is sent while the lease is being renewed.
    Listening(StreamLease),
}

impl SendPermission {
    fn is_current(&self) -> bool {
        match self {
            Self::Admitted | Self::Leased(_) => true,
            Self::Listening(lease) => lease.is_current(),
        }
    }

    async fn renew(&mut self) -> bool {
        match self {
            Self::Admitted => std::future::pending().await,
            Self::Leased(lease) | Self::Listening(lease) => lease.renew().await.is_ok(),
        }
    }
}

impl EventBody {
    pub(super) fn into_response(self) -> Response {
        let frames = stream::unfold(self, |mut body| async move {
            let frame = body.next().await?;
            Some((Ok::<_, Infallible>(frame), body))
        });
        let mut response = Body::from_stream(frames).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(UNBUFFERED.0, UNBUFFERED.1);
        response
    }

    /// Tells the client when to reconnect, before the stream of its session ends (SEP-1699).
    fn reconnect_event(&self) -> Bytes {
        let after_ms = rand::random_range(RECONNECT_MS);
        let session = self.session.as_ref();
        let is_event = session.is_some_and(|it| it.revision == ProtocolRevision::November2025);
        // Older clients parse an event without data as a message, and this field alone as they do
        // with any event stream.
        let end = if is_event { "\n\n" } else { "\n" };
        format!("retry: {after_ms}{end}").into()
    }

    /// The next bytes of the stream. `None`: it has ended.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let stream = Arc::clone(self.reader.stream());
        while !self.is_ended {
            // Checked first: a caller that has lost its permission receives no pending event.
            match self.permission.renew().now_or_never() {
                Some(true) => continue,
                Some(false) => {
                    self.is_ended = true;
                    continue;
                }
                None => {}
            }
            let changed = stream.changed();
            let is_current = self.permission.is_current();
            if is_current {
                match self.reader.next() {
                    ReadOutcome::Event(number, event) => {
                        let extra = match (&event.authorization, &self.permission) {
                            (Some(authorization), SendPermission::Listening(lease)) => {
                                lease.reauthorizer_for(authorization)
                            }
                            _ => None,
                        };
                        let decision = match extra {
                            // Boxed, so that an idle stream needs no memory for it.
                            Some(extra) => Box::pin(extra.reauthorize()).await.map(drop),
                            None => Ok(()),
                        };
                        match decision {
                            Ok(()) => {}
                            // The client can resume the stream, and receive this event then.
                            Err(Refusal::AuthUnavailable | Refusal::Unverified) => {
                                self.is_ended = true;
                                continue;
                            }
                            Err(_) => continue,
                        }
                        let frame = frame(stream.id(), number, &event.message);
                        let charge = || self.budget.as_ref()?.charge(frame.len());
                        return Some(UnreadResponse::track(event.unread.or_else(charge), frame));
                    }
                    ReadOutcome::End => return None,
                    ReadOutcome::Empty => {}
                }
            }
            tokio::select! {
                biased;
                is_renewed = self.permission.renew() => self.is_ended = !is_renewed,
                () = work_finished(&mut self.work) => self.work = None,
                () = changed, if is_current => {}
                () = drained(self.draining.as_ref()) => {
                    self.is_ended = true;
                    self.draining = None;
                    if self.last.is_none() {
                        return Some(self.reconnect_event());
                    }
                }
                () = tokio::time::sleep(self.keep_alive) => {
                    self.session.iter().for_each(|session| session.touch());
                    return Some(COMMENT);
                }
            }
        }
        self.work = None;
        self.last.take().map(|message| frame(None, 0, &message))
    }
}

async fn work_finished(work: &mut Option<BoxFuture<'static, ()>>) {
    match work {
        Some(work) => Pin::new(work).await,
        None => std::future::pending().await,
    }
}

async fn drained(draining: Option<&CancellationToken>) {
    match draining {
        Some(draining) => draining.cancelled().await,
        None => std::future::pending().await,
    }
}

/// The comment that starts a stream.
pub(super) fn opening_comment() -> Bytes {
    COMMENT
}

/// An event without data, from which a client can resume the stream (SEP-1699).
pub(super) fn priming_event(stream: u64) -> Bytes {
    format!("id: {stream:016x}-0\ndata: \n\n").into()
}

/// Writes one message as an event. Serialized JSON contains no line breaks.
fn frame(stream: Option<u64>, number: u64, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 64);
    frame.put_slice(b"event: message\n");
    if let Some(stream) = stream {
        frame.put_slice(format!("id: {stream:016x}-{number}\n").as_bytes());
    }
    frame.put_slice(b"data: ");
    frame.put_slice(message);
    frame.put_slice(b"\n\n");
    frame.freeze()
}

/// Parses the stream and the number of the last event that a client received.
pub(super) fn parse_event_id(text: &str) -> Option<(u64, u64)> {
    let (stream, number) = text.split_once('-')?;
    if stream.len() != 16 {
        return None;
    }
    Some((u64::from_str_radix(stream, 16).ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_data_line_and_an_id() {
        let frame = frame(Some(0xab), 7, br#"{"a":1}"#);
        assert_eq!(frame, &b"event: message\nid: 00000000000000ab-7\ndata: {\"a\":1}\n\n"[..]);
        assert_eq!(parse_event_id("00000000000000ab-7"), Some((0xab, 7)));
        for invalid in
            ["", "-", "7", "ab-7", "00000000000000ab-", "00000000000000ab-x", "00000000000000ag-1"]
        {
            assert_eq!(parse_event_id(invalid), None, "{invalid}");
        }
    }
}
