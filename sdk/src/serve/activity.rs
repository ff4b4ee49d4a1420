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
    /// When the last request ended, or the connection began.
    since: Instant,
    /// Since when the parts of answers wait that were handed out to be sent, by a number of each answer.
    handed_out: BTreeMap<u64, Instant>,
    answers: u64,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// Nothing runs on it.
    Quiet,
    /// Its client does not take what was sent.
    Stuck,
}

impl Activity {
    pub(super) fn new() -> Self {
        let since = Instant::now();
        Self(Mutex::new(State { running: 0, since, handed_out: BTreeMap::new(), answers: 0 }))
    }

    /// Notes a request. It runs until its answer has been sent.
    pub(super) fn begin(this: &Arc<Self>) -> Running {
        this.state().running += 1;
        Running(Arc::clone(this))
    }

    /// Waits until no request has run for this long. What has been read of the next one's headers does not
    /// count: who sends them byte by byte keeps no connection. Or until a part of an answer was not taken for `send`.
    pub(super) async fn idle(&self, time: Duration, send: Duration) -> Idle {
        loop {
            let (since, oldest) = {
                let state = self.state();
                let oldest = state.handed_out.values().min().copied();
                ((state.running == 0).then_some(state.since), oldest)
            };
            if oldest.is_some_and(|oldest| oldest.elapsed() >= send) {
                return Idle::Stuck;
            }
            match since {
                None => sleep(time.min(send)).await,
                Some(since) if since.elapsed() >= time => return Idle::Quiet,
                Some(since) => sleep_until(since + time).await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that runs.
pub(super) struct Running(Arc<Activity>);

impl Running {
    /// Lets it run until its answer has been sent.
    pub(super) fn until_sent(self, body: Body) -> Body {
        let number = {
            let mut state = self.0.state();
            state.answers += 1;
            let number = state.answers;
            state.handed_out.insert(number, Instant::now());
            number
        };
        Body::new(Sending { body, number, running: self })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.since = Instant::now();
    }
}

struct Sending {
    body: Body,
    number: u64,
    running: Running,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.running.0.state().handed_out.remove(&self.number);
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let handed_out = &mut self.running.0.state().handed_out;
        if polled.is_ready() {
            handed_out.insert(self.number, Instant::now());
        } else {
            // It waits for the next part, and not for the client.
            handed_out.remove(&self.number);
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
    async fn a_connection_is_not_idle_while_an_answer_is_being_sent() {
        let activity = Arc::new(Activity::new());
        let (first, second) = (Activity::begin(&activity), Activity::begin(&activity));
        let stream = second.until_sent(Body::from("a stream"));
        drop(first);
        assert!(tokio::time::timeout(10 * IDLE, activity.idle(IDLE, SEND)).await.is_err());
        let body = stream.collect().await.map(|body| body.to_bytes());
        assert_eq!(body.ok().as_deref(), Some("a stream".as_bytes()));
        assert_eq!(activity.idle(IDLE, SEND).await, Idle::Quiet);
    }

    #[tokio::test]
    async fn a_client_that_takes_no_part_of_an_answer_ends_its_connection() {
        let activity = Arc::new(Activity::new());
        let (parts, body) =
            tokio::sync::mpsc::channel::<Result<Bytes, std::convert::Infallible>>(2);
        let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
        let mut stream = Box::pin(Activity::begin(&activity).until_sent(body));
        assert_eq!(activity.idle(IDLE, IDLE).await, Idle::Stuck, "not even begun");
        // It waits for the service, and not for the client.
        assert!(futures::poll!(stream.frame()).is_pending());
        assert!(tokio::time::timeout(10 * IDLE, activity.idle(IDLE, IDLE)).await.is_err());
        parts.send(Ok(Bytes::from_static(b"part"))).await.unwrap();
        assert!(stream.frame().await.is_some());
        assert_eq!(activity.idle(IDLE, IDLE).await, Idle::Stuck);
    }
}
