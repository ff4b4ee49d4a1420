//! The client's address of requests that arrive through proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, header};

use crate::traffic::limits::ClientAddress;

/// The header in which proxies report the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The proxies in front of the edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxies {
    pub(crate) hops: usize,
    pub(crate) header: ForwardedBy,
}

impl Proxies {
    /// The client's address, as the outermost trusted proxy saw it.
    pub(crate) fn client(self, request: &Request) -> ClientAddress {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let forwarded = self.forwarded_address(request.headers());
        // A dual-stack socket reports IPv4 clients as mapped IPv6 addresses.
        ClientAddress(forwarded.unwrap_or(peer).to_canonical())
    }

    /// Each proxy appends the address that it saw, so the trusted ones wrote the last `hops`
    /// entries, and the client may have written the earlier ones. With fewer entries the request
    /// bypassed the proxies.
    fn forwarded_address(self, headers: &HeaderMap) -> Option<IpAddr> {
        if self.hops == 0 {
            return None;
        }
        let entries: Vec<_> = match self.header {
            ForwardedBy::XForwardedFor => values(headers, "x-forwarded-for")
                .flat_map(|value| value.split(','))
                .map(|entry| address(entry.trim()))
                .collect(),
            ForwardedBy::Forwarded => values(headers, header::FORWARDED.as_str())
                .flat_map(|value| value.split(','))
                .map(forwarded_for)
                .collect(),
        };
        *entries.get(entries.len().checked_sub(self.hops)?)?
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    // A value that is not text counts as an entry with an unknown address.
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default())
}

/// The `for` of one element. Splitting ignores quotes, because a quote that the client leaves open
/// would hide the elements that the proxies append; no address contains a comma or a semicolon.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let value = value.trim();
        let unquoted =
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        name.trim().eq_ignore_ascii_case("for").then(|| address(unquoted))?
    })
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const PEER: &str = "10.0.0.1:5000";

    fn check(hops: usize, header: ForwardedBy, headers: &[(&str, &str)], expected: &str) {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).expect("a request");
        let peer: SocketAddr = PEER.parse().expect("an address");
        request.extensions_mut().insert(ConnectInfo(peer));
        let client = Proxies { hops, header }.client(&request);
        assert_eq!(client.0.to_string(), expected, "{hops} {headers:?}");
    }

    #[test]
    fn the_client_address_is_the_one_that_the_outermost_trusted_proxy_saw() {
        use ForwardedBy::{Forwarded, XForwardedFor};
        let spoofed = ("x-forwarded-for", "1.1.1.1, 2.2.2.2");
        check(0, XForwardedFor, &[spoofed], "10.0.0.1");
        check(1, XForwardedFor, &[spoofed], "2.2.2.2");
        check(2, XForwardedFor, &[spoofed], "1.1.1.1");
        check(2, XForwardedFor, &[spoofed, ("x-forwarded-for", "3.3.3.3:80")], "2.2.2.2");
        check(1, XForwardedFor, &[("x-forwarded-for", "[2001:db8::1]:443")], "2001:db8::1");
        check(1, XForwardedFor, &[("x-forwarded-for", "::ffff:2.2.2.2")], "2.2.2.2");
        let forwarded =
            ("forwarded", r#"for=1.1.1.1, For="[2001:db8::1]:443";by=_edge;proto=https"#);
        check(1, Forwarded, &[forwarded], "2001:db8::1");
        check(2, Forwarded, &[forwarded], "1.1.1.1");
        check(1, XForwardedFor, &[forwarded, spoofed], "2.2.2.2");
    }

    #[test]
    fn an_address_that_no_trusted_proxy_reported_is_ignored() {
        use ForwardedBy::{Forwarded, XForwardedFor};
        check(1, XForwardedFor, &[], "10.0.0.1");
        check(3, XForwardedFor, &[("x-forwarded-for", "1.1.1.1, 2.2.2.2")], "10.0.0.1");
        check(1, XForwardedFor, &[("x-forwarded-for", "1.1.1.1, unknown")], "10.0.0.1");
        check(1, XForwardedFor, &[("x-forwarded-for", "")], "10.0.0.1");
        check(1, XForwardedFor, &[("forwarded", "for=1.1.1.1")], "10.0.0.1");
        check(1, Forwarded, &[("x-forwarded-for", "1.1.1.1")], "10.0.0.1");
        check(1, Forwarded, &[("forwarded", "for=1.1.1.1, for=_hidden")], "10.0.0.1");
        check(1, Forwarded, &[("forwarded", "proto=https")], "10.0.0.1");
        check(1, Forwarded, &[("forwarded", r#"for=1.1.1.1;by=", for=2.2.2.2"#)], "2.2.2.2");
    }
}
