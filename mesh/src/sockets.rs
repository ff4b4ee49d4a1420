//! The sockets of a mesh, all bound before any service starts.

use std::net::{Ipv4Addr, SocketAddr};

use drawbridge_runtime::{BindError, Listen};
use url::Url;

/// The documented port of the authorization server. The admin port of a service is the next one.
pub(super) const IDP_PORT: u16 = 7100;
/// The documented port of auth.
pub(super) const AUTH_PORT: u16 = 7110;
/// The documented port of the edge.
pub(super) const EDGE_PORT: u16 = 7180;

/// The services' ports on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The authorization server's port; all other ports have the same offset from it as the
    /// documented ones have from 7100.
    From(u16),
    /// Free ports.
    Free,
}

impl Ports {
    /// The first documented port.
    pub const FIRST: u16 = IDP_PORT;
    /// The offset of the last port from the first.
    pub const SPAN: u16 = 131;
    /// The documented ports.
    pub const WELL_KNOWN: Self = Self::From(Self::FIRST);

    /// The port of the edge, if known before binding.
    #[must_use]
    pub fn edge(self) -> Option<u16> {
        match self {
            Self::From(first) => Some(first + (EDGE_PORT - Self::FIRST)),
            Self::Free => None,
        }
    }

    /// Binds the counterpart of a documented port.
    pub(crate) fn bind(self, port: u16) -> Result<BoundSocket, BindError> {
        let port = match self {
            Self::From(first) => first + (port - Self::FIRST),
            Self::Free => 0,
        };
        let (listen, address) = Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Ok(BoundSocket { listen, address })
    }
}

/// A bound socket.
#[derive(Clone, Debug)]
pub(crate) struct BoundSocket {
    pub(crate) listen: Listen,
    pub(crate) address: SocketAddr,
}

impl BoundSocket {
    pub(crate) fn url(&self, path: &str) -> Result<Url, url::ParseError> {
        format!("http://{}{path}", self.address).parse()
    }
}

/// The sockets of one service.
pub(crate) struct Sockets {
    pub(crate) main: BoundSocket,
    pub(crate) admin: BoundSocket,
}
