use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::framing::BrokenFraming;
use crate::metrics::BODY_TIMEOUTS;

/// Reading a request body took too long. The response is 408.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request body took too long")]
pub struct BodyTimeout;

/// The framing of a request body is not valid HTTP/1.1. The response is 400.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the framing of the request body is invalid")]
pub(super) struct BodyFraming;

/// A body that fails with [`BodyTimeout`] when it is not complete in time. Receiving parts does not
/// extend the time.
pub(super) struct TimedBody {
    body: Incoming,
    broken: BrokenFraming,
    time: Duration,
    /// Starts when a reader first waits for the body.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, broken: BrokenFraming, time: Duration) -> Self {
        Self { body, broken, time, deadline: None }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, broken, time, deadline } = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            if broken.is_set() {
                return Poll::Ready(Some(Err(BodyFraming.into())));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = deadline.get_or_insert_with(|| Box::pin(sleep(*time)));
        deadline.as_mut().poll(context).map(|()| {
            BODY_TIMEOUTS.get().increment(1);
            Some(Err(BodyTimeout.into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
