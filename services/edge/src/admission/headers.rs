//! The request headers that admission reads.

use http::{HeaderMap, HeaderValue, header, request::Parts};
use secrecy::SecretString;

use crate::{admitted::Accepts, refusal::Refusal};

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

/// Checks the Content-Type and Accept headers. Returns what the client accepts.
pub(super) fn check_headers(parts: &Parts) -> Result<Accepts, Refusal> {
    check_content_type(&parts.headers)?;
    match parts.headers.contains_key(header::ACCEPT) {
        true => accept(&parts.headers),
        false => Ok(Accepts::Json),
    }
}

/// The token of a `Bearer` header (RFC 6750 section 2.1).
pub(super) fn bearer_token(header: Option<&HeaderValue>) -> Result<SecretString, Refusal> {
    let header = header.ok_or(Refusal::Unauthenticated { description: None })?;
    let token = header.to_str().ok().and_then(|header| {
        let (scheme, token) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| SecretString::from(token.trim()))
    });
    token.ok_or(Refusal::Unauthenticated {
        description: Some("the Authorization header must be `Bearer` and a token".to_owned()),
    })
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let essence =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    match essence {
        Some(essence) if essence.trim().eq_ignore_ascii_case(JSON) => Ok(()),
        _ => Err(Refusal::ContentType),
    }
}

/// What the client accepts. Without an Accept header it accepts both.
pub(super) fn accept(headers: &HeaderMap) -> Result<Accepts, Refusal> {
    let text: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = text.join(",").to_ascii_lowercase();
    let accepts = |kinds: &[&str]| {
        text.split(',')
            .filter_map(|range| range.split(';').next())
            .any(|range| kinds.contains(&range.trim()))
    };
    let stream = text.is_empty() || accepts(&[EVENT_STREAM, "text/*", "*/*"]);
    let json = text.is_empty() || accepts(&[JSON, "application/*", "*/*"]);
    match (json, stream) {
        (true, true) => Ok(Accepts::Both),
        (true, false) => Ok(Accepts::Json),
        (false, true) => Ok(Accepts::Stream),
        (false, false) => Err(Refusal::NotAcceptable),
    }
}
