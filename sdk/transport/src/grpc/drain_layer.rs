//! Ends calls of a service that stops: watches when it accepts no more work, because they would
//! never end by themselves, and all others when the drain timeout has passed. Their callers get
//! UNAVAILABLE, and reach another replica.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use drawbridge_contract::{Exposure, exposed_methods};
use drawbridge_runtime::ServiceTasks;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost_reflect::{DescriptorError, DescriptorPool};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

/// The paths of the watches in an encoded `FileDescriptorSet`.
pub(super) fn watch_paths(descriptors: &[u8]) -> Result<HashSet<String>, DescriptorError> {
    let pool = DescriptorPool::decode(descriptors)?;
    let services: Vec<_> = pool.services().map(|service| service.full_name().to_owned()).collect();
    let exposed = exposed_methods(&pool, &services);
    let watches = exposed.filter(|exposed| matches!(exposed.kind, Exposure::Watch(_)));
    Ok(watches.map(|exposed| format!("/{}", exposed.rpc())).collect())
}

#[derive(Clone, Debug)]
pub(super) struct DrainLayer {
    watches: Arc<HashSet<String>>,
    draining: CancellationToken,
    overdue: CancellationToken,
}

impl DrainLayer {
    pub(super) fn new(tasks: &ServiceTasks, watches: HashSet<String>) -> Self {
        let (draining, overdue) = (tasks.draining(), tasks.overdue());
        Self { watches: Arc::new(watches), draining, overdue }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DrainService { inner, layer: self.clone() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct DrainService<S> {
    inner: S,
    layer: DrainLayer,
}

impl<S, B> Service<Request<B>> for DrainService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.method() != Method::POST {
            // A document, not a call.
            return Box::pin(self.inner.call(request));
        }
        let DrainLayer { watches, draining, overdue } = &self.layer;
        let end = if watches.contains(request.uri().path()) { draining } else { overdue }.clone();
        let response = self.inner.call(request);
        Box::pin(async move {
            match end.run_until_cancelled(response).await {
                Some(response) => Ok(response?
                    .map(|body| Body::new(DrainBody { body, end, ended: None, is_over: false }))),
                None => Ok(stopping().into_http()),
            }
        })
    }
}

fn stopping() -> Status {
    Status::unavailable("the service is stopping; retry")
}

/// The messages of a response. It ends early with a status.
struct DrainBody {
    body: Body,
    end: CancellationToken,
    /// Absent: the body has not been waited for yet, as in most calls.
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    is_over: bool,
}

impl HttpBody for DrainBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // What is there is still sent.
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            return polled;
        }
        let this = &mut *self;
        let end = || Box::pin(this.end.clone().cancelled_owned());
        if this.ended.get_or_insert_with(end).as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.is_over = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(stopping().add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
