//! The client's address.

use std::net::{IpAddr, Ipv4Addr};

use http::Extensions;

/// The address that a request comes from. It does not authenticate the caller; it only selects the
/// limits and the queue of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// The address that a request comes from. Requests of unknown origin share the unspecified address.
pub(crate) fn client_address(extensions: &Extensions) -> IpAddr {
    extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0)
}
