use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};
use tracing::Span;
use url::Url;

use super::{
    ChannelError, ReplicaCounts,
    replica::{Follow, resolve_and_connect},
    replicas::{Origin, Replicas},
    send::{absolute, connection_error, received},
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
                resolve_and_connect(&replicas, origin, connector, follow.clone())
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
                Ok(response) => {
                    connection.record_address(&Span::current());
                    return Ok(received(response, connection));
                }
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
