//! Client addresses as limits distinguish them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The usual length of an IPv6 network prefix; clients choose the other bits freely.
const NETWORK_BITS: u32 = 64;

/// The address of a client's connection; for IPv6 its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientAddress(IpAddr);

impl ClientAddress {
    pub(crate) fn ip(self) -> IpAddr {
        self.0
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(peer: SocketAddr) -> Self {
        Self(match peer.ip().to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & !(u128::MAX >> NETWORK_BITS);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_equal() {
        let of = |text: &str| ClientAddress::from(text.parse::<SocketAddr>().unwrap());
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("127.0.0.1:1"), of("[::ffff:127.0.0.1]:2"));
        assert_ne!(of("127.0.0.1:1"), of("127.0.0.2:1"));
    }
}
