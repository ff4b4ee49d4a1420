use std::{
    io,
    net::{AddrParseError, SocketAddr, TcpListener},
    str::FromStr,
    sync::Arc,
};

/// Where a service listens: an address still to be bound, or a socket that is bound already, so that
/// services that need one another's addresses can be configured before any of them starts.
#[derive(Clone, Debug)]
pub enum Listen {
    /// An address to bind. Port 0 takes a free port.
    Address(SocketAddr),
    /// A bound socket.
    Bound(Arc<TcpListener>),
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl BindError {
    /// What other services say is not taken from the network in plaintext.
    pub(crate) fn plaintext(address: SocketAddr) -> Self {
        let why = "plaintext beyond loopback: give --mtls-certificate-file, or allow it (--allow-plaintext)";
        Self { address, source: io::Error::other(why) }
    }

    /// What is to be served there is not what its contract says.
    pub(crate) fn contract(address: SocketAddr, why: String) -> Self {
        Self { address, source: io::Error::other(why) }
    }
}

impl Listen {
    /// Binds now, and says where.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub fn bind(address: SocketAddr) -> Result<(Self, SocketAddr), BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok((Self::Bound(Arc::new(listener)), bound))
    }

    /// The socket, ready for the runtime that this is called in.
    pub(crate) fn listener(&self) -> Result<tokio::net::TcpListener, BindError> {
        match self {
            Self::Address(address) => Self::bind(*address)?.0.listener(),
            Self::Bound(listener) => {
                let failed = |source| BindError {
                    address: listener.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
                    source,
                };
                let listener = listener.try_clone().map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                tokio::net::TcpListener::from_std(listener).map_err(failed)
            }
        }
    }
}

impl FromStr for Listen {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::Address)
    }
}
