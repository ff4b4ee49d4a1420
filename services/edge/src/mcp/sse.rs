//! Event streams as HTTP sends them.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{FutureExt as _, future::BoxFuture, stream};
use http::{HeaderName, HeaderValue, header};
use tokio_util::sync::CancellationToken;

use super::{
    events::{Next, Reader},
    session::{Session, Slot},
};
use crate::{
    admission::authorizer::Lease,
    admission::{CallerBudget, Unsent},
    refusal::Refusal,
};

/// Keeps a connection open that has nothing to say, and lets a client see that its stream has begun. A line alone:
/// readers that remember the last event's id make an empty event of an empty line after it (httpx-sse, and with it
/// version 1 of the Python SDK, which takes that for a message).
const COMMENT: Bytes = Bytes::from_static(b":\n");
/// Tells proxies to pass events on as they come.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The body of an event stream.
pub(super) struct EventBody {
    pub(super) reader: Reader,
    /// The work that the events come from, where it ends with the connection.
    pub(super) work: Option<BoxFuture<'static, ()>>,
    pub(super) right: Right,
    pub(super) keep_alive: Duration,
    /// What the stream says when it ends before its answer.
    pub(super) last: Option<Bytes>,
    /// When listening ends: the edge stops.
    pub(super) stopping: Option<CancellationToken>,
    /// What is sent first, so that a client can take the stream up again before its first event.
    pub(super) first: Option<Bytes>,
    /// Whoever listens in a session uses it.
    pub(super) session: Option<Arc<Session>>,
    /// Where what is delivered once more is charged.
    pub(super) budget: Option<CallerBudget>,
    pub(super) _slot: Option<Slot>,
    pub(super) is_over: bool,
}

/// The right to send.
#[derive(Debug)]
pub(super) enum Right {
    /// That of the request itself, which was admitted.
    Admitted,
    /// A lease: the stream ends with it.
    Leased(Lease),
    /// A lease, without which nothing is sent while it has not been decided again.
    Listening(Lease),
}

impl Right {
    fn is_decided(&self) -> bool {
        match self {
            Self::Admitted | Self::Leased(_) => true,
            Self::Listening(lease) => lease.is_decided(),
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

    /// The next bytes of the stream. None: it has ended.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let stream = Arc::clone(self.reader.stream());
        while !self.is_over {
            // Before anything is sent: whoever has no right any more gets nothing of what waits.
            match self.right.renew().now_or_never() {
                Some(true) => continue,
                Some(false) => {
                    self.is_over = true;
                    continue;
                }
                None => {}
            }
            let changed = stream.changed();
            let is_decided = self.right.is_decided();
            if is_decided {
                match self.reader.next() {
                    Next::Event(number, event) => {
                        let also = match (&event.needs, &self.right) {
                            (Some(needs), Right::Listening(lease)) => lease.also(needs),
                            _ => None,
                        };
                        let asked = match also {
                            // Boxed, so that a stream at rest has no room for it.
                            Some(also) => Box::pin(also.ask()).await.map(drop),
                            None => Ok(()),
                        };
                        match asked {
                            Ok(()) => {}
                            // The client takes the stream up again, and with it this event.
                            Err(Refusal::AuthUnavailable | Refusal::Unverified) => {
                                self.is_over = true;
                                continue;
                            }
                            Err(_) => continue,
                        }
                        let frame = frame(stream.id(), number, &event.message);
                        let charge = || self.budget.as_ref()?.charge(frame.len());
                        return Some(Unsent::bytes(event.unsent.or_else(charge), frame));
                    }
                    Next::End => return None,
                    Next::Nothing => {}
                }
            }
            tokio::select! {
                biased;
                is_renewed = self.right.renew() => self.is_over = !is_renewed,
                () = finished(&mut self.work) => self.work = None,
                () = changed, if is_decided => {}
                () = stopped(self.stopping.as_ref()) => self.is_over = true,
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

async fn finished(work: &mut Option<BoxFuture<'static, ()>>) {
    match work {
        Some(work) => Pin::new(work).await,
        None => std::future::pending().await,
    }
}

async fn stopped(stopping: Option<&CancellationToken>) {
    match stopping {
        Some(stopping) => stopping.cancelled().await,
        None => std::future::pending().await,
    }
}

/// A comment with which a stream begins.
pub(super) fn beginning() -> Bytes {
    COMMENT
}

/// An event without data, from which on a client can take the stream up again (SEP-1699).
pub(super) fn priming(stream: u64) -> Bytes {
    format!("id: {stream:016x}-0\ndata: \n\n").into()
}

/// One message as an event. JSON has no line breaks of its own.
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

/// The stream and the event that a client has seen last.
pub(super) fn event_id(text: &str) -> Option<(u64, u64)> {
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
    fn an_event_is_one_line_of_data_that_names_its_place() {
        let frame = frame(Some(0xab), 7, br#"{"a":1}"#);
        assert_eq!(frame, &b"event: message\nid: 00000000000000ab-7\ndata: {\"a\":1}\n\n"[..]);
        assert_eq!(event_id("00000000000000ab-7"), Some((0xab, 7)));
        for none in
            ["", "-", "7", "ab-7", "00000000000000ab-", "00000000000000ab-x", "00000000000000ag-1"]
        {
            assert_eq!(event_id(none), None, "{none}");
        }
    }
}
