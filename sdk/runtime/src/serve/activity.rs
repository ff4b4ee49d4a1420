use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, sleep, sleep_until};

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    running: usize,
    /// When the last request ended, or the connection started.
    since: Instant,
    /// Since when parts of responses wait to be sent, by the number of the response.
    unsent_since: BTreeMap<u64, Instant>,
    responses: u64,
}

/// Why a connection must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleReason {
    /// No request is running.
    NoRequests,
    /// The client does not receive what was sent.
    ClientStalled,
}

impl Activity {
    pub(super) fn new() -> Self {
        let since = Instant::now();
        Self(Mutex::new(State { running: 0, since, unsent_since: BTreeMap::new(), responses: 0 }))
    }

    /// Starts a request. It runs until its response has been sent.
    pub(super) fn start_request(this: &Arc<Self>) -> RunningRequest {
        this.state().running += 1;
        RunningRequest(Arc::clone(this))
    }

    /// Waits until no request has run for `idle_timeout`, or a part of a response was not received
    /// for `send_timeout`. Partial headers of a next request do not count: a client that sends them
    /// byte by byte does not hold the connection.
    pub(super) async fn wait_idle(
        &self,
        idle_timeout: Duration,
        send_timeout: Duration,
    ) -> IdleReason {
        loop {
            let (since, oldest) = {
                let state = self.state();
                let oldest = state.unsent_since.values().min().copied();
                ((state.running == 0).then_some(state.since), oldest)
            };
            if oldest.is_some_and(|oldest| oldest.elapsed() >= send_timeout) {
                return IdleReason::ClientStalled;
            }
            match since {
                None => sleep(idle_timeout.min(send_timeout)).await,
                Some(since) if since.elapsed() >= idle_timeout => return IdleReason::NoRequests,
                Some(since) => sleep_until(since + idle_timeout).await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running request.
pub(super) struct RunningRequest(Arc<Activity>);

impl RunningRequest {
    /// Ends the request when the body has been sent.
    pub(super) fn until_sent(self, body: Body) -> Body {
        let number = {
            let mut state = self.0.state();
            state.responses += 1;
            let number = state.responses;
            state.unsent_since.insert(number, Instant::now());
            number
        };
        Body::new(TrackedBody { body, number, running: self })
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.since = Instant::now();
    }
}

struct TrackedBody {
    body: Body,
    number: u64,
    running: RunningRequest,
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.running.0.state().unsent_since.remove(&self.number);
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let unsent_since = &mut self.running.0.state().unsent_since;
        if polled.is_ready() {
            unsent_since.insert(self.number, Instant::now());
        } else {
            // It waits for the service, not for the client.
            unsent_since.remove(&self.number);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const IDLE: Duration = Duration::from_millis(20);
    const SEND: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_connection_is_not_idle_while_a_response_is_being_sent() {
        let activity = Arc::new(Activity::new());
        let (first, second) =
            (Activity::start_request(&activity), Activity::start_request(&activity));
        let stream = second.until_sent(Body::from("a stream"));
        drop(first);
        assert!(tokio::time::timeout(10 * IDLE, activity.wait_idle(IDLE, SEND)).await.is_err());
        let body = stream.collect().await.map(|body| body.to_bytes());
        assert_eq!(body.ok().as_deref(), Some("a stream".as_bytes()));
        assert_eq!(activity.wait_idle(IDLE, SEND).await, IdleReason::NoRequests);
    }

    #[tokio::test]
    async fn a_connection_ends_when_its_client_receives_no_part_of_a_response() {
        let activity = Arc::new(Activity::new());
        let (parts, body) =
            tokio::sync::mpsc::channel::<Result<Bytes, std::convert::Infallible>>(2);
        let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
        let mut stream = Box::pin(Activity::start_request(&activity).until_sent(body));
        assert_eq!(
            activity.wait_idle(IDLE, IDLE).await,
            IdleReason::ClientStalled,
            "not even the first part is received"
        );
        // It waits for the service, not for the client.
        assert!(futures::poll!(stream.frame()).is_pending());
        assert!(tokio::time::timeout(10 * IDLE, activity.wait_idle(IDLE, IDLE)).await.is_err());
        parts.send(Ok(Bytes::from_static(b"part"))).await.unwrap();
        assert!(stream.frame().await.is_some());
        assert_eq!(activity.wait_idle(IDLE, IDLE).await, IdleReason::ClientStalled);
    }
}
