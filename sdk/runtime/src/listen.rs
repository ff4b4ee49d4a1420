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

use crate::socket::{self, SocketPath, SocketPathError, UnixStream};

/// Where a service listens: an address to bind, or a socket that is already bound, so that services
/// that need each other's addresses can be configured before any of them starts.
#[derive(Clone, Debug)]
pub enum Listen {
    /// An address to bind. Port 0 selects a free port.
    Address(SocketAddr),
    /// A bound socket.
    Bound(Arc<TcpListener>),
    /// A Unix-domain socket to bind, for gRPC.
    Unix(SocketPath),
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix-domain socket.
    Unix(SocketPath),
}

impl Address {
    /// The address and the port; `None` for a Unix-domain socket.
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
    /// The address must not be served, for this reason.
    #[must_use]
    pub fn refused(address: Address, why: impl Into<String>) -> Self {
        Self { address, source: io::Error::other(why.into()) }
    }
}

/// A connection in plaintext, over TCP or a Unix-domain socket.
pub type Plaintext = Either<TcpStream, UnixStream>;

/// Accepted connections, before any handshake.
pub type Accepted = BoxStream<'static, io::Result<Plaintext>>;

impl Listen {
    /// Binds now, and returns the bound address.
    ///
    /// # Errors
    /// When the address is in use or not on this machine.
    pub fn bind(address: SocketAddr) -> Result<(Self, SocketAddr), BindError> {
        let failed = |source| BindError { address: address.into(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok((Self::Bound(Arc::new(listener)), bound))
    }

    /// The address and the port, which may be 0 before binding.
    ///
    /// # Errors
    /// When it is a Unix-domain socket, which does not serve HTTP, or has lost its address.
    pub fn tcp_address(&self) -> Result<SocketAddr, BindError> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Bound(listener) => listener.local_addr().map_err(|source| {
                let address = SocketAddr::from(([0, 0, 0, 0], 0)).into();
                BindError { address, source }
            }),
            Self::Unix(socket) => Err(BindError {
                address: Address::Unix(socket.clone()),
                source: io::Error::other("HTTP is served only over TCP: set an address and a port"),
            }),
        }
    }

    /// The address to listen on; the port may be 0.
    ///
    /// # Errors
    /// When a bound socket has lost its address.
    pub fn address(&self) -> Result<Address, BindError> {
        match self {
            Self::Unix(socket) => Ok(Address::Unix(socket.clone())),
            _ => self.tcp_address().map(Address::Tcp),
        }
    }

    /// The TCP socket, registered with the current runtime.
    pub(crate) fn listener(&self) -> Result<tokio::net::TcpListener, BindError> {
        let address = self.tcp_address()?;
        let Self::Bound(listener) = self else { return Self::bind(address)?.0.listener() };
        let failed = |source| BindError { address: address.into(), source };
        let listener = listener.try_clone().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        tokio::net::TcpListener::from_std(listener).map_err(failed)
    }

    /// Accepts connections over TCP or a Unix-domain socket, and returns the bound address.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn accept(&self) -> Result<(Accepted, Address), BindError> {
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

/// A text is not an address to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is not an address and a port.
    #[error(
        "{0}: expected an address and a port such as 127.0.0.1:7210, \
         or, for gRPC, unix:/absolute/path"
    )]
    Address(#[from] AddrParseError),
    /// It is not a valid Unix-domain socket.
    #[error(transparent)]
    Socket(#[from] SocketPathError),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if SocketPath::has_scheme(text) {
            return Ok(Self::Unix(text.parse()?));
        }
        Ok(Self::Address(text.parse()?))
    }
}
