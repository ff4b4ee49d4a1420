//! The HTTP server. Every resource that a client can use is bounded.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::ConnectInfo};
use futures::future::{Either, ready};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use self::{
    activity::{Activity, IdleReason},
    body::TimedBody,
    framing::BrokenFraming,
    lingering::Lingering,
};
pub use self::{body::BodyTimeout, certificate::ServerCertificate, limits::HttpLimits};
use crate::{
    handshakes::{HandshakeError, Handshakes},
    metrics::{CLOSED_CONNECTIONS, OPEN_CONNECTIONS},
    request_id::{REQUEST_ID, RequestId},
};

mod activity;
mod body;
mod certificate;
mod framing;
mod limits;
mod lingering;

/// The largest request head (request line and headers), in bytes. A larger one gets 431.
const HEAD_BYTES_MAX: u32 = 32 * 1024;
/// How many requests one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 128;
/// How much a client may send on an HTTP/2 connection before it is read, in bytes.
const WINDOW_BYTES: u32 = 64 * 1024;
/// How many streams that were reset before they were accepted end an HTTP/2 connection
/// (CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;
/// How many streams that were reset for protocol errors of the peer end an HTTP/2 connection.
const PROTOCOL_ERROR_STREAMS_MAX: usize = 128;
/// The keep-alive interval of HTTP/2 connections, and the timeout of its pings.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a connection in graceful shutdown may go without a request.
const GRACEFUL_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long accepting pauses when the system has no resources for another connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How HTTP is served.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// The limits of clients.
    pub limits: HttpLimits,
    /// The TLS certificate. Absent: plain HTTP.
    pub certificate: Option<Arc<ServerCertificate>>,
}

/// The service that handles the requests of all connections: an axum router, or another service.
pub trait HttpService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> HttpService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// When a server stops.
#[derive(Clone, Debug)]
pub(crate) struct ServerShutdown {
    /// It will accept no more requests soon: HTTP/1 connections close after their next response, so
    /// that few of them are idle when it does.
    pub(crate) leaving: CancellationToken,
    /// It accepts no more requests.
    pub(crate) draining: CancellationToken,
}

/// Serves until `draining`, and returns when the last connection has closed.
pub(crate) async fn serve(
    listener: TcpListener,
    service: impl HttpService,
    options: HttpOptions,
    shutdown: ServerShutdown,
) {
    let draining = shutdown.draining.clone();
    let permits =
        Arc::new(Semaphore::new(options.limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let server = Arc::new(Server {
        http: http(),
        tls: options.certificate.map(|certificate| {
            (certificate.acceptor(), Arc::new(Handshakes::new(options.limits.handshakes())))
        }),
        service,
        limits: options.limits,
        shutdown,
    });
    let connections = TaskTracker::new();
    // Without a permit, further connections wait in the system's backlog, which is bounded too.
    while let Some(Ok(permit)) =
        draining.run_until_cancelled(Arc::clone(&permits).acquire_owned()).await
    {
        let Some(accepted) = draining.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(Arc::clone(&server).connection(stream, peer, permit));
            }
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn http() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        // What a client may send before it is read.
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        // h2 bounds CONTINUATION frames by the size of the headers.
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(PROTOCOL_ERROR_STREAMS_MAX);
    builder
}

/// The response to a request with ambiguous framing.
fn bad_framing_response() -> Response<Body> {
    CLOSED_CONNECTIONS.with(["framing".into()]).increment(1);
    let mut response =
        Response::new(Body::from("the framing of the request is not valid HTTP/1.1\n"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(REQUEST_ID, RequestId::generate().header());
    response
}

struct Server<S> {
    http: Builder<TokioExecutor>,
    tls: Option<(TlsAcceptor, Arc<Handshakes>)>,
    service: S,
    limits: HttpLimits,
    shutdown: ServerShutdown,
}

impl<S: HttpService> Server<S> {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let open = OPEN_CONNECTIONS.get();
        open.increment(1);
        // Parts of a stream are sent immediately, not when the client has acknowledged the previous
        // one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot disable Nagle's algorithm on a connection");
        }
        match &self.tls {
            None => self.serve_connection(stream, peer).await,
            // Boxed, so that a connection without TLS does not reserve its memory.
            Some(tls) => Box::pin(self.serve_tls(tls, stream, peer)).await,
        }
        open.decrement(1);
        drop(permit);
    }

    /// Serves a connection over TLS.
    async fn serve_tls(
        &self,
        (tls, handshakes): &(TlsAcceptor, Arc<Handshakes>),
        stream: TcpStream,
        peer: SocketAddr,
    ) {
        match Box::pin(handshakes.accept(tls, stream, peer.ip())).await {
            Ok(stream) => self.serve_connection(stream, peer).await,
            Err(error) => {
                let reason = match error {
                    HandshakeError::Tls(_) => "tls",
                    HandshakeError::Timeout => "tls_timeout",
                    HandshakeError::Evicted => "tls_evicted",
                    HandshakeError::TooMany => "tls_too_many",
                };
                CLOSED_CONNECTIONS.with([reason.into()]).increment(1);
                tracing::debug!(
                    error = crate::error_chain(&error),
                    "the TLS handshake with a client failed"
                );
            }
        }
    }

    /// Serves requests until the connection closes.
    async fn serve_connection<I>(&self, stream: I, peer: SocketAddr)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::new());
        let broken = BrokenFraming::default();
        let service = service_fn(|request| self.handle(request, peer, &activity, &broken));
        let stream = TokioIo::new(Lingering::new(stream, broken.clone()));
        let mut connection = pin!(self.http.serve_connection(stream, service));
        let (idle_timeout, send_timeout) = (self.limits.idle_timeout(), self.limits.send_timeout());
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.shutdown.draining.cancelled() => None,
            idle = activity.wait_idle(idle_timeout, send_timeout) => {
                let is_stalled = idle == IdleReason::ClientStalled;
                let reason = if is_stalled { "send_timeout" } else { "idle" };
                CLOSED_CONNECTIONS.with([reason.into()]).increment(1);
                if is_stalled {
                    return;
                }
                None
            }
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = async {
                        sleep(GRACEFUL_SHUTDOWN_TIMEOUT).await;
                        activity.wait_idle(GRACEFUL_SHUTDOWN_TIMEOUT, send_timeout).await;
                    } => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            CLOSED_CONNECTIONS.with(["protocol".into()]).increment(1);
            tracing::debug!(error, "a connection ended");
        }
    }

    fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        activity: &Arc<Activity>,
        broken: &BrokenFraming,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<S> {
        let running = Activity::start_request(activity);
        let is_http_1 = request.version() <= Version::HTTP_11;
        let response = if broken.is_set() {
            Either::Left(ready(Ok(bad_framing_response())))
        } else {
            let timeout = self.limits.body_timeout();
            let timed = |body| Body::new(TimedBody::new(body, broken.clone(), timeout));
            let mut request = request.map(timed);
            request.extensions_mut().insert(ConnectInfo(peer));
            Either::Right(self.service.clone().call(request))
        };
        let leaving = self.shutdown.leaving.clone();
        async move {
            let mut response = response.await?.map(|body| running.until_sent(body));
            if is_http_1 && leaving.is_cancelled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response)
        }
    }
}
