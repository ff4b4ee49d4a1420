//! Reverse proxies between clients and an edge, as they are configured in the field.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use url::Url;

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// The headers that a proxy unaware of MCP forwards.
const KNOWN: [HeaderName; 14] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::DATE,
    header::HOST,
    header::LOCATION,
    header::RETRY_AFTER,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
    header::VARY,
    header::WWW_AUTHENTICATE,
];

/// How a proxy forwards traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Forwards everything as it arrives.
    Forwards,
    /// Forwards a response once it is complete.
    Buffers,
    /// Closes a connection without traffic in either direction for this long.
    ClosesIdle(Duration),
    /// Strips headers that are not in common use, in both directions.
    StripsHeaders,
}

/// A reverse proxy on a free port. It stops with its runtime.
#[derive(Clone, Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mode: ProxyMode,
    upstream: OnceLock<SocketAddr>,
    /// The session that the edge opened last.
    session: Mutex<Option<HeaderValue>>,
    /// The number of events after which the next event stream breaks.
    cut_after: Mutex<Option<usize>>,
}

impl Proxy {
    /// Binds a free port. It serves connections once [`Self::forward`] has set the upstream.
    pub async fn bind(mode: ProxyMode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            mode,
            upstream: OnceLock::new(),
            session: Mutex::default(),
            cut_after: Mutex::default(),
        });
        let proxy = Self { address, shared };
        tokio::spawn(proxy.clone().accept(listener));
        proxy
    }

    /// Its authority, which the edge must allow as a Host.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Forwards connections to this edge, and returns the URL of the edge through the proxy.
    pub fn forward(&self, edge: &Url) -> Url {
        let upstream = edge.socket_addrs(|| None).expect("an address")[0];
        self.shared.upstream.set(upstream).expect("a proxy of one edge");
        let mut url = edge.clone();
        url.set_port(Some(self.address.port())).expect("a port");
        url
    }

    /// The session that the edge opened last.
    pub fn session(&self) -> Option<HeaderValue> {
        self.shared.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Breaks the connection of the next event stream that responds to a POST, after this many
    /// events.
    pub fn cut_next_stream(&self, events: usize) {
        *self.shared.cut_after.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    /// Whether the stream was [cut](Self::cut_next_stream).
    pub fn has_cut(&self) -> bool {
        self.shared.cut_after.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                if let ProxyMode::ClosesIdle(idle) = shared.mode {
                    // A broken connection does not fail the test.
                    drop(shared.tunnel(client, idle).await);
                    return;
                }
                let service =
                    hyper::service::service_fn(|request| Arc::clone(&shared).forward(request));
                let server = hyper::server::conn::http1::Builder::new();
                drop(server.serve_connection(TokioIo::new(client), service).await);
            });
        }
    }
}

impl Shared {
    async fn connect(&self) -> io::Result<TcpStream> {
        let upstream = self.upstream.get().ok_or(io::ErrorKind::NotConnected)?;
        TcpStream::connect(upstream).await
    }

    /// Copies bytes in both directions until one side closes, or the tunnel is idle for this long.
    async fn tunnel(&self, client: TcpStream, idle: Duration) -> io::Result<()> {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_edge, mut to_edge) = self.connect().await?.into_split();
        let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        loop {
            let copied = timeout(idle, async {
                tokio::select! {
                    copied = copy(&mut from_client, &mut to_edge, &mut up) => copied,
                    copied = copy(&mut from_edge, &mut to_client, &mut down) => copied,
                }
            });
            if copied.await.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
                return Ok(());
            }
        }
    }

    /// An error closes the client's connection without a response.
    async fn forward(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Either<Full<Bytes>, Cut>>, Box<dyn std::error::Error + Send + Sync>> {
        let upstream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(upstream).await?;
        tokio::spawn(connection);
        self.strip(request.headers_mut());
        let is_post = request.method() == http::Method::POST;
        let mut response = sender.send_request(request).await?;
        if let Some(session) = response.headers().get(SESSION_ID) {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        }
        self.strip(response.headers_mut());
        if self.mode == ProxyMode::Buffers {
            let (mut head, body) = response.into_parts();
            head.headers.remove(header::TRANSFER_ENCODING);
            let whole = body.collect().await?.to_bytes();
            return Ok(Response::from_parts(head, Either::Left(Full::new(whole))));
        }
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let is_stream = content_type.is_some_and(|kind| kind == "text/event-stream");
        let mut cut_after = self.cut_after.lock().unwrap_or_else(PoisonError::into_inner);
        let remaining = if is_post && is_stream { cut_after.take() } else { None };
        drop(cut_after);
        Ok(response.map(|body| Either::Right(Cut { body, remaining, is_flushed: false })))
    }

    fn strip(&self, headers: &mut HeaderMap) {
        if self.mode == ProxyMode::StripsHeaders {
            let unknown: Vec<_> =
                headers.keys().filter(|name| !KNOWN.contains(name)).cloned().collect();
            for name in unknown {
                headers.remove(name);
            }
        }
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    buffer: &mut [u8],
) -> io::Result<usize> {
    let read = from.read(buffer).await?;
    to.write_all(&buffer[..read]).await?;
    Ok(read)
}

/// A body that fails after the remaining number of events.
#[derive(Debug)]
struct Cut {
    body: Incoming,
    remaining: Option<usize>,
    is_flushed: bool,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.remaining == Some(0) {
            if self.is_flushed {
                return Poll::Ready(Some(Err("the stream is cut".into())));
            }
            // The preceding events must reach the client: a pending body makes the server flush.
            self.is_flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(Ok(frame)), Some(remaining)) = (&frame, &mut self.remaining) {
            // The edge writes each event in one piece.
            let data = frame.data_ref().map(|data| String::from_utf8_lossy(data));
            let events = data.map_or(0, |data| data.matches("\ndata: {").count());
            *remaining = remaining.saturating_sub(events);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}
