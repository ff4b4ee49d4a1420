use http::{
    HeaderMap, HeaderValue,
    header::{
        CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};

/// Sets the security headers of a response: no MIME sniffing, no framing, no scripts, no referrer,
/// and HSTS for a server that is reached over TLS. A header that the response already sets is
/// unchanged.
pub fn security_headers(headers: &mut HeaderMap, over_tls: bool) {
    let defaults = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    let hsts = over_tls.then_some((STRICT_TRANSPORT_SECURITY, "max-age=31536000"));
    for (name, value) in defaults.into_iter().chain(hsts) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
