//! How much an issuer is asked about opaque tokens, and by whom.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
};

use serde::Deserialize;

/// The bits of an IPv6 address that name a network: whoever has one has all of its addresses (RFC 4291 section 2.5.4).
const NETWORK_BITS: u32 = 64;

/// How much an issuer is asked. What is not configured is the default.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IntrospectionLimits {
    /// For how long a token that was good counts as known, in seconds.
    pub(super) known_seconds: NonZeroU32,
    /// Questions about known tokens that may be on their way at once.
    pub(super) known_in_flight_max: NonZeroU32,
    /// For how long a refusal is remembered, in seconds.
    pub(super) refused_seconds: NonZeroU32,
    /// Questions about unknown tokens, in a second.
    pub(super) unknown_per_second: NonZeroU32,
    /// Those that may be on their way at once.
    pub(super) unknown_in_flight_max: NonZeroU32,
    /// Those of one network among them.
    pub(super) unknown_in_flight_per_address_max: NonZeroU32,
    /// Those that may wait.
    pub(super) unknown_queue_max: NonZeroU32,
    /// Those of one network among them.
    pub(super) unknown_queue_per_address_max: NonZeroU32,
    /// How long one may wait, in milliseconds.
    pub(super) unknown_queue_timeout_ms: NonZeroU32,
}

const fn of(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl Default for IntrospectionLimits {
    fn default() -> Self {
        Self {
            known_seconds: of(3600),
            known_in_flight_max: of(32),
            refused_seconds: of(10),
            unknown_per_second: of(50),
            unknown_in_flight_max: of(16),
            unknown_in_flight_per_address_max: of(4),
            unknown_queue_max: of(128),
            unknown_queue_per_address_max: of(32),
            unknown_queue_timeout_ms: of(2000),
        }
    }
}

/// Where a token was shown: an IPv4 address, or the network of an IPv6 one. It is no proof of anything, only whom to
/// count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// The network of an address. Absent: nobody can say where it is, as an older edge does not.
    pub(crate) fn of(address: &str) -> Option<Self> {
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
