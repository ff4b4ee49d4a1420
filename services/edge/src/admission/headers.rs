//! What the gate reads of a request's headers.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header, request::Parts};
use secrecy::SecretString;

use crate::refusal::Refusal;

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

/// What a client takes for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// One JSON message alone.
    Json,
    /// An event stream alone.
    Stream,
    Both,
}

impl Accepts {
    /// Whether the client can be told something before the answer.
    pub(crate) fn streams(self) -> bool {
        self != Self::Json
    }

    /// After how long without an answer a stream is opened. None: never.
    pub(crate) fn quiet(self, usual: Duration) -> Option<Duration> {
        match self {
            Self::Json => None,
            Self::Stream => Some(Duration::ZERO),
            Self::Both => Some(usual),
        }
    }
}

/// Checks what the headers say of the body and of the answer. Says what the sender takes for an answer.
pub(super) fn check_headers(parts: &Parts) -> Result<Accepts, Refusal> {
    check_content_type(&parts.headers)?;
    match parts.headers.contains_key(header::ACCEPT) {
        true => accept(&parts.headers),
        false => Ok(Accepts::Json),
    }
}

/// The token of a `Bearer` header (RFC 6750 section 2.1).
pub(super) fn bearer(header: Option<&HeaderValue>) -> Result<SecretString, Refusal> {
    let header = header.ok_or(Refusal::Unauthenticated { description: None })?;
    let token = header.to_str().ok().and_then(|header| {
        let (scheme, token) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| SecretString::from(token.trim()))
    });
    token.ok_or(Refusal::Unauthenticated {
        description: Some("the Authorization header holds no bearer token".to_owned()),
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

/// What the client takes for an answer. One that says nothing takes all.
pub(super) fn accept(headers: &HeaderMap) -> Result<Accepts, Refusal> {
    let text: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = text.join(",").to_ascii_lowercase();
    let takes = |kinds: &[&str]| {
        text.split(',')
            .filter_map(|range| range.split(';').next())
            .any(|range| kinds.contains(&range.trim()))
    };
    let streams = text.is_empty() || takes(&[EVENT_STREAM, "text/*", "*/*"]);
    let json = text.is_empty() || takes(&[JSON, "application/*", "*/*"]);
    match (json, streams) {
        (true, true) => Ok(Accepts::Both),
        (true, false) => Ok(Accepts::Json),
        (false, true) => Ok(Accepts::Stream),
        (false, false) => Err(Refusal::NotAcceptable),
    }
}
