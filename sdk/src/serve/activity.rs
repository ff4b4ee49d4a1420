use std::{
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
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { running: 0, since: Instant::now() }))
    }

    /// Notes a request. It runs until its answer has been sent.
    pub(super) fn begin(this: &Arc<Self>) -> Running {
        this.state().running += 1;
        Running(Arc::clone(this))
    }

    /// Waits until no request has run for this long. What has been read of the next one's headers does not
    /// count: who sends them byte by byte keeps no connection.
    pub(super) async fn idle(&self, time: Duration) {
        loop {
            let since = {
                let state = self.state();
                (state.running == 0).then_some(state.since)
            };
            match since {
                None => sleep(time).await,
                Some(since) if since.elapsed() >= time => return,
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
        Body::new(Sending { body, _running: self })
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
    _running: Running,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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

    #[tokio::test]
    async fn a_connection_is_not_idle_while_an_answer_is_being_sent() {
        let activity = Arc::new(Activity::new());
        let (first, second) = (Activity::begin(&activity), Activity::begin(&activity));
        let stream = second.until_sent(Body::from("a stream"));
        drop(first);
        assert!(tokio::time::timeout(10 * IDLE, activity.idle(IDLE)).await.is_err());
        let body = stream.collect().await.map(|body| body.to_bytes());
        assert_eq!(body.ok().as_deref(), Some("a stream".as_bytes()));
        activity.idle(IDLE).await;
    }
}
