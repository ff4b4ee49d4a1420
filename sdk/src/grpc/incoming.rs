//! Connections as they come in: with TLS, once both sides have shown who they are.

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

use crate::{
    listen::Accepted,
    mtls::{Accept, MaybeTls, Plaintext, SpiffeId},
};

/// Who is at the other end of the connection. A handler takes it from the request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from. Of a Unix-domain socket, loopback with port 0.
    pub address: SocketAddr,
    /// The service that its certificate names. Absent: the connection is in plaintext.
    pub id: Option<SpiffeId>,
}

impl Peer {
    /// The peer that sent this request.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }
}

pub(crate) fn incoming(
    accepted: Accepted,
    accept: Accept,
) -> impl Stream<Item = io::Result<Connection>> {
    // One more than may be on their way, so that a newcomer is looked at, for which another goes.
    let at_once = accept.handshakes_max() + 1;
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
        .buffer_unordered(at_once)
        .filter_map(std::future::ready)
}

async fn handshake(stream: Plaintext, accept: &Accept) -> Option<Connection> {
    let address = match &stream {
        Either::Left(stream) => {
            // An answer is more than one write: held back, the next would wait 40 ms for the client's ACK.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps its delay");
            }
            let unknown = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            stream.peer_addr().unwrap_or(unknown)
        }
        Either::Right(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    let (wire, id) = accept.accept(stream, address.ip()).await?;
    Some(Connection { wire, peer: Peer { address, id } })
}

pub(crate) struct Connection {
    wire: MaybeTls,
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
        Pin::new(&mut self.wire).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
