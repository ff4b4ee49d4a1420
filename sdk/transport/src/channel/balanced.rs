use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, Uri, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, body::Body};
use url::Url;

use super::{
    ChannelError, RESPONSE_HEADERS_BYTES_MAX, ReplicaCounts,
    replica::Follow,
    replicas::{self, Connection, Origin, Replicas},
    status_headers,
};
use crate::mtls::{Connector, Peers};

/// How many replicas a call that was not sent is tried on.
const ATTEMPTS_MAX: usize = 3;

/// A channel to all replicas of one service: every URL of a list, and every address that a URL's
/// host name resolves to, now and later.
///
/// A call goes to the connected replica with the fewest calls in flight. An unreachable replica
/// gets no calls; while no replica is reachable, calls fail immediately with `UNAVAILABLE`. A call
/// that was not sent because its connection was closing is retried on another replica; one that may
/// have been sent is not.
///
/// Clones share the connections, which close with the last clone.
///
/// tonic's own balanced channel does none of this: it sends calls to replicas that refuse
/// connections, and without an address its calls wait forever.
#[derive(Clone, Debug)]
pub struct BalancedChannel {
    replicas: Arc<Replicas>,
    _resolving: Arc<[AbortOnDropHandle<Infallible>]>,
}

impl BalancedChannel {
    /// A plaintext channel to replicas on this machine. It starts to connect to every replica
    /// behind `urls` and does not wait for it. Must be called within a runtime.
    ///
    /// # Errors
    /// When there is no URL, or one is not of the form `http://host:port` or leads beyond loopback.
    pub fn new(urls: &[Url]) -> Result<Self, ChannelError> {
        Peers::default().balanced(urls, "", None)
    }

    /// As [`Self::new`], to the peers that each connector accepts, those of them that are followed.
    pub(super) fn with_connectors(
        urls: &[(&Url, Connector)],
        follow: &Follow,
    ) -> Result<Self, ChannelError> {
        if urls.is_empty() {
            return Err(ChannelError::Empty);
        }
        let origin =
            |(url, connector): &(&Url, Connector)| Ok((Origin::new(url)?, connector.clone()));
        let origins: Vec<_> = urls.iter().map(origin).collect::<Result<_, ChannelError>>()?;
        let replicas = Arc::new(Replicas::default());
        let resolving = origins
            .into_iter()
            .map(|(origin, connector)| {
                replicas::resolve_and_connect(&replicas, origin, connector, follow.clone())
            })
            .collect();
        Ok(Self { replicas, _resolving: resolving })
    }

    /// How many replicas the service has, and how many of them get calls, now and after each
    /// change.
    #[must_use]
    pub fn counts(&self) -> watch::Receiver<ReplicaCounts> {
        self.replicas.counts()
    }

    #[cfg(test)]
    pub(super) fn replicas(&self) -> &Arc<Replicas> {
        &self.replicas
    }

    async fn send(self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(mut connection) = self.replicas.pick().await else { break };
            *request.uri_mut() = absolute(request.uri(), connection.origin())?;
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok(received(response, connection)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(connection_error(error.into_error())),
                },
            }
        }
        Err(Status::unavailable("no replica of the service can be reached"))
    }
}

impl tower::Service<Request<Body>> for BalancedChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The call holds the channel, and so its connection attempts, until it is sent.
        Box::pin(self.clone().send(request))
    }
}

/// Sends a call over one connection.
pub(super) async fn send_to(
    mut connection: Connection,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    *request.uri_mut() = absolute(request.uri(), connection.origin())?;
    let response = connection.sender.send_request(request).await.map_err(connection_error)?;
    Ok(received(response, connection))
}

/// The call counts as in flight until the last byte of its response is read.
fn received(mut response: Response<Incoming>, connection: Connection) -> Response<Body> {
    status_headers::sanitize(response.headers_mut());
    response.map(|body| {
        let body = body.map_frame(move |mut frame| {
            let _in_flight = &connection;
            if let Some(trailers) = frame.trailers_mut() {
                status_headers::sanitize(trailers);
            }
            frame
        });
        Body::new(body.map_err(unreadable_or))
    })
}

fn absolute(uri: &Uri, origin: &Uri) -> Result<Uri, Status> {
    let mut parts = origin.clone().into_parts();
    parts.path_and_query =
        Some(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).map_err(|_| Status::internal("the path of a call is invalid"))
}

/// Whether this side aborted the call or the connection because of what the service sent. A retry
/// would fail the same way.
fn is_unreadable(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let too_large =
                error.is_go_away() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
            return error.is_library() && (error.is_reset() || too_large);
        }
        source = cause.source();
    }
    false
}

fn unreadable() -> Status {
    Status::internal(format!(
        "the service's response is not HTTP/2, or has more than {RESPONSE_HEADERS_BYTES_MAX} bytes \
         of headers"
    ))
}

fn unreadable_or(error: hyper::Error) -> Box<dyn std::error::Error + Send + Sync> {
    if is_unreadable(&error) { unreadable().into() } else { error.into() }
}

/// The status of a call whose connection broke.
fn connection_error(error: hyper::Error) -> Status {
    if is_unreadable(&error) {
        return unreadable();
    }
    let lost = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
    let status = Status::from_error(Box::new(error));
    if lost || status.code() == Code::Unknown {
        return Status::unavailable("the connection to the service broke");
    }
    status
}
