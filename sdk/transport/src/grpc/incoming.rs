//! Incoming connections: over TLS, once both sides are authenticated.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::mtls::{Acceptor, MaybeTls, SpiffeId};
use drawbridge_runtime::{Accepted, Plaintext};

/// The other end of the connection. A handler takes it from the request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The remote address. For a Unix-domain socket, loopback with port 0.
    pub address: SocketAddr,
    /// The service that its certificate names. Absent: the connection is plaintext.
    pub id: Option<SpiffeId>,
}

impl Peer {
    /// The peer that sent this request.
    pub fn from_request<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }
}

pub(crate) fn incoming(
    accepted: Accepted,
    accept: Acceptor,
) -> impl Stream<Item = io::Result<Connection>> {
    // One more than may be in progress, so that a new connection is polled and can evict another.
    let concurrency = accept.handshakes_max() + 1;
    accepted
        .map(move |accepted| {
            let accept = accept.clone();
            async move {
                match accepted {
                    Ok(stream) => handshake(stream, &accept).await.map(Ok),
                    Err(error) => Some(Err(error)),
                }
            }
        })
        .buffer_unordered(concurrency)
        .filter_map(std::future::ready)
}

async fn handshake(stream: Plaintext, accept: &Acceptor) -> Option<Connection> {
    let address = match &stream {
        Either::Left(stream) => {
            // A response is more than one write: with Nagle's algorithm the next one would wait 40
            // ms for the client's ACK.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot disable Nagle's algorithm on a connection");
            }
            let unknown = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            stream.peer_addr().unwrap_or(unknown)
        }
        Either::Right(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    let (stream, id) = accept.accept(stream, address.ip()).await?;
    Some(Connection { stream, peer: Peer { address, id } })
}

pub(crate) struct Connection {
    stream: MaybeTls,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
