use http::{
    HeaderMap, HeaderValue,
    header::{
        CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};

/// Tells browsers to make nothing of an answer but what it says it is: no guessed type, no frame, no
/// scripts, no referrer, and no plain HTTP for a server that is reached over TLS. An answer that says
/// something of its own keeps it.
pub fn security_headers(headers: &mut HeaderMap, over_tls: bool) {
    let wanted = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    let for_tls = over_tls.then_some((STRICT_TRANSPORT_SECURITY, "max-age=31536000"));
    for (name, value) in wanted.into_iter().chain(for_tls) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
