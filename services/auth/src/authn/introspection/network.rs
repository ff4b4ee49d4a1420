//! The networks that limits of introspection requests apply to.

use std::net::{IpAddr, Ipv6Addr};

/// The network bits of an IPv6 address: one client usually has the whole network (RFC 4291 section
/// 2.5.4).
const NETWORK_BITS: u32 = 64;

/// The network that a token came from: an IPv4 address, or the network of an IPv6 address. It
/// groups requests for limits and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// The network of an address. `None`: unknown, as from an older edge.
    pub(crate) fn parse(address: &str) -> Option<Self> {
        address.parse().ok().map(|address: IpAddr| address.into())
    }
}

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let host_bits = u128::BITS - NETWORK_BITS;
                Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
            }
            address => address,
        })
    }
}
