//! The HTTP server: connections in, answers out, and nothing that goes on without a bound.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::ConnectInfo};
use futures::future::{Either, ready};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use metrics::{counter, gauge};
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
    activity::{Activity, Idle},
    body::TimedBody,
    framing::Broken,
    lingering::Lingering,
};
pub use self::{body::BodyTimeout, certificate::Certificate, limits::HttpLimits};
use crate::{
    call::{REQUEST_ID, RequestId},
    handshakes::{HandshakeError, Handshakes},
};

mod activity;
mod body;
mod certificate;
mod framing;
mod limits;
mod lingering;

/// The largest head of a request, in bytes: its line and its headers. More is answered with 431.
const HEAD_BYTES_MAX: u32 = 32 * 1024;
/// How many requests one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 128;
/// How much a client may send on an HTTP/2 connection before it is read, in bytes.
const WINDOW_BYTES: u32 = 64 * 1024;
/// How many streams that were reset before they were looked at end an HTTP/2 connection (CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;
/// How many streams that were reset for their peer's mistakes end an HTTP/2 connection.
const WRONG_STREAMS_MAX: usize = 128;
/// How often an HTTP/2 peer that says nothing is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a connection that is asked to end may go on without a request.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long accepting rests when the system has no room for another connection.
const NO_ROOM_REST: Duration = Duration::from_millis(100);

/// How HTTP is served.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// What a client may take.
    pub limits: HttpLimits,
    /// The certificate to serve TLS with. Absent: plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
}

/// What answers the requests of all connections: an axum router, or a service of one's own.
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

/// Serves until `stopping`, and ends when the last connection has.
pub(crate) async fn serve(
    listener: TcpListener,
    service: impl HttpService,
    options: HttpOptions,
    stopping: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(options.limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let server = Arc::new(Server {
        http: http(),
        tls: options.certificate.map(|certificate| {
            (certificate.acceptor(), Arc::new(Handshakes::new(options.limits.handshakes())))
        }),
        service,
        limits: options.limits,
        stopping: stopping.clone(),
    });
    let connections = TaskTracker::new();
    // Whoever comes when there is no room waits in the system's queue, which is bounded too.
    while let Some(Ok(place)) =
        stopping.run_until_cancelled(Arc::clone(&room).acquire_owned()).await
    {
        let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(Arc::clone(&server).connection(stream, peer, place));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(NO_ROOM_REST).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn http() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        // What a client may send before somebody reads it.
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        // h2 bounds CONTINUATION frames by the size of the headers.
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(WRONG_STREAMS_MAX);
    builder
}

/// The answer to a request that another reader could read as two.
fn not_framed() -> Response<Body> {
    counter!("http_server_closed_connections_total", "reason" => "framing").increment(1);
    let mut response = Response::new(Body::from("the request's framing is not that of HTTP/1.1\n"));
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
    stopping: CancellationToken,
}

impl<S: HttpService> Server<S> {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
    ) {
        let open = gauge!("http_server_open_connections");
        open.increment(1);
        // The parts of a stream are for the client now, not when it has acknowledged the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        match &self.tls {
            None => self.speak(stream, peer).await,
            // Boxed, so that a connection without TLS has no room for it.
            Some(tls) => Box::pin(self.speak_tls(tls, stream, peer)).await,
        }
        open.decrement(1);
        drop(place);
    }

    /// The same behind TLS.
    async fn speak_tls(
        &self,
        (tls, handshakes): &(TlsAcceptor, Arc<Handshakes>),
        stream: TcpStream,
        peer: SocketAddr,
    ) {
        match Box::pin(handshakes.shake(tls, stream, peer.ip())).await {
            Ok(stream) => self.speak(stream, peer).await,
            Err(error) => {
                let reason = match error {
                    HandshakeError::Tls(_) => "tls",
                    HandshakeError::Timeout => "tls_timeout",
                    HandshakeError::Evicted => "tls_evicted",
                    HandshakeError::TooMany => "tls_too_many",
                };
                counter!("http_server_closed_connections_total", "reason" => reason).increment(1);
                tracing::debug!(
                    error = crate::error_chain(&error),
                    "there is no TLS with a client"
                );
            }
        }
    }

    /// Answers requests until the connection ends.
    async fn speak<I>(&self, stream: I, peer: SocketAddr)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::new());
        let broken = Broken::default();
        let service = service_fn(|request| self.answer(request, peer, &activity, &broken));
        let stream = TokioIo::new(Lingering::new(stream, broken.clone()));
        let mut connection = pin!(self.http.serve_connection(stream, service));
        let (idle_timeout, send_timeout) = (self.limits.idle_timeout(), self.limits.send_timeout());
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stopping.cancelled() => None,
            idle = activity.idle(idle_timeout, send_timeout) => {
                let reason = if idle == Idle::Stuck { "send_timeout" } else { "idle" };
                counter!("http_server_closed_connections_total", "reason" => reason).increment(1);
                if idle == Idle::Stuck {
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
                    () = async { sleep(GOODBYE).await; activity.idle(GOODBYE, send_timeout).await; } => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            counter!("http_server_closed_connections_total", "reason" => "protocol").increment(1);
            tracing::debug!(error, "a connection ended");
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        activity: &Arc<Activity>,
        broken: &Broken,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<S> {
        let running = Activity::begin(activity);
        let answering = if broken.is_set() {
            Either::Left(ready(Ok(not_framed())))
        } else {
            let timeout = self.limits.body_timeout();
            let timed = |body| Body::new(TimedBody::new(body, broken.clone(), timeout));
            let mut request = request.map(timed);
            request.extensions_mut().insert(ConnectInfo(peer));
            Either::Right(self.service.clone().call(request))
        };
        async move { Ok(answering.await?.map(|body| running.until_sent(body))) }
    }
}
