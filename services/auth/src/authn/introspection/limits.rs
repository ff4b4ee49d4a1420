//! Limits of introspection requests, and the networks that they apply to.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
};

use serde::Deserialize;

/// The network bits of an IPv6 address: one client usually has the whole network (RFC 4291 section
/// 2.5.4).
const NETWORK_BITS: u32 = 64;

/// Limits of introspection requests. Omitted fields have their defaults.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IntrospectionLimits {
    /// How long a valid token counts as known, in seconds.
    pub(super) known_seconds: NonZeroU32,
    /// The maximum number of requests in flight for known tokens.
    pub(super) known_in_flight_max: NonZeroU32,
    /// How long an inactive result is cached, in seconds.
    pub(super) refused_seconds: NonZeroU32,
    /// The maximum rate of requests for unknown tokens, per second.
    pub(super) unknown_per_second: NonZeroU32,
    /// The maximum number of those in flight.
    pub(super) unknown_in_flight_max: NonZeroU32,
    /// The maximum number of those in flight per network.
    pub(super) unknown_in_flight_per_address_max: NonZeroU32,
    /// The maximum number of those in the queue.
    pub(super) unknown_queue_max: NonZeroU32,
    /// The maximum number of those in the queue per network.
    pub(super) unknown_queue_per_address_max: NonZeroU32,
    /// The maximum time in the queue, in milliseconds.
    pub(super) unknown_queue_timeout_ms: NonZeroU32,
}

const fn nonzero(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl Default for IntrospectionLimits {
    fn default() -> Self {
        Self {
            known_seconds: nonzero(3600),
            known_in_flight_max: nonzero(32),
            refused_seconds: nonzero(10),
            unknown_per_second: nonzero(50),
            unknown_in_flight_max: nonzero(16),
            unknown_in_flight_per_address_max: nonzero(4),
            unknown_queue_max: nonzero(128),
            unknown_queue_per_address_max: nonzero(32),
            unknown_queue_timeout_ms: nonzero(2000),
        }
    }
}

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
