use std::{
    fmt, io,
    net::{AddrParseError, SocketAddr, TcpListener},
    str::FromStr,
    sync::Arc,
};

use futures::{StreamExt as _, stream::BoxStream};
use tokio::net::TcpStream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::either::Either;

use crate::{
    mtls::Plaintext,
    socket::{self, SocketPath, SocketPathError},
};

/// Where a service listens: an address still to be bound, or a socket that is bound already, so that
/// services that need one another's addresses can be configured before any of them starts.
#[derive(Clone, Debug)]
pub enum Listen {
    /// An address to bind. Port 0 takes a free port.
    Address(SocketAddr),
    /// A bound socket.
    Bound(Arc<TcpListener>),
    /// A Unix-domain socket to bind, for gRPC.
    Unix(SocketPath),
}

/// Where something is served.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix-domain socket.
    Unix(SocketPath),
}

impl Address {
    /// The address and the port. None: a Unix-domain socket.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(socket) => socket.fmt(formatter),
        }
    }
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: Address,
    source: io::Error,
}

impl BindError {
    /// What other services say is not taken from the network in plaintext.
    pub(crate) fn plaintext(address: Address) -> Self {
        let why = "plaintext beyond loopback: give --mtls-certificate-file, or allow it (--allow-plaintext)";
        Self { address, source: io::Error::other(why) }
    }

    /// A Unix-domain socket cannot prove the SPIFFE ids that the service allows.
    pub(crate) fn tls_required(address: Address) -> Self {
        let why = "a Unix-domain socket has no TLS, so --mtls-allow cannot be enforced on it: give an address and a port, or no certificate";
        Self { address, source: io::Error::other(why) }
    }

    /// What is to be served there is not what its contract says.
    pub(crate) fn contract(address: Address, why: String) -> Self {
        Self { address, source: io::Error::other(why) }
    }
}

/// Connections as they are accepted, of which nothing is known yet.
pub(crate) type Accepted = BoxStream<'static, io::Result<Plaintext>>;

impl Listen {
    /// Binds now, and says where.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub fn bind(address: SocketAddr) -> Result<(Self, SocketAddr), BindError> {
        let failed = |source| BindError { address: address.into(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok((Self::Bound(Arc::new(listener)), bound))
    }

    /// The address and the port, which may be 0 before they are bound.
    ///
    /// # Errors
    /// When it is a Unix-domain socket, over which no HTTP is served to clients, or has lost its address.
    pub fn tcp_address(&self) -> Result<SocketAddr, BindError> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Bound(listener) => listener.local_addr().map_err(|source| {
                let address = SocketAddr::from(([0, 0, 0, 0], 0)).into();
                BindError { address, source }
            }),
            Self::Unix(socket) => Err(BindError {
                address: Address::Unix(socket.clone()),
                source: io::Error::other(
                    "HTTP is served over TCP alone: give an address and a port",
                ),
            }),
        }
    }

    /// Where it is to be; the port may be 0.
    pub(crate) fn address(&self) -> Result<Address, BindError> {
        match self {
            Self::Unix(socket) => Ok(Address::Unix(socket.clone())),
            _ => self.tcp_address().map(Address::Tcp),
        }
    }

    /// The TCP socket, ready for the runtime that this is called in.
    pub(crate) fn listener(&self) -> Result<tokio::net::TcpListener, BindError> {
        let address = self.tcp_address()?;
        let Self::Bound(listener) = self else { return Self::bind(address)?.0.listener() };
        let failed = |source| BindError { address: address.into(), source };
        let listener = listener.try_clone().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        tokio::net::TcpListener::from_std(listener).map_err(failed)
    }

    /// Accepts connections, over TCP or a Unix-domain socket, and says where.
    pub(crate) fn accept(&self) -> Result<(Accepted, Address), BindError> {
        if let Self::Unix(path) = self {
            let address = Address::Unix(path.clone());
            let failed = |source| BindError { address: address.clone(), source };
            let accepted = socket::bind(path).map_err(failed)?;
            return Ok((accepted.map(|stream| stream.map(Either::Right)).boxed(), address));
        }
        let listener = self.listener()?;
        let address = local_address(&listener).into();
        let accepted = TcpListenerStream::new(listener);
        Ok((
            accepted.map(|stream: io::Result<TcpStream>| stream.map(Either::Left)).boxed(),
            address,
        ))
    }
}

pub(crate) fn local_address(listener: &tokio::net::TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// A text does not say where to listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is not an address and a port.
    #[error(
        "{0}: give an address and a port such as 127.0.0.1:7210, or, for gRPC, unix:/absolute/path"
    )]
    Address(#[from] AddrParseError),
    /// It is not a Unix-domain socket.
    #[error(transparent)]
    Socket(#[from] SocketPathError),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if SocketPath::is_meant_by(text) {
            return Ok(Self::Unix(text.parse()?));
        }
        Ok(Self::Address(text.parse()?))
    }
}
