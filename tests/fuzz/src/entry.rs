//! The edge's HTTP endpoint: one request in, one response out, with an auth that allows every
//! caller and a tool service whose response is part of the input.
//!
//! An input is `METHOD path`, header lines, an empty line, the body, and after a NUL the service's
//! response.

#![no_main]
#![expect(clippy::expect_used, reason = "a failed start ends the fuzz target")]

use std::{sync::LazyLock, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use libfuzzer_sys::{Corpus, fuzz_target};

use self::edge::{Edge, read_rest};

mod contracts;
mod edge;

/// The time limit for a response and for each part of its body: a stream may be silent.
const PART_TIMEOUT: Duration = Duration::from_millis(20);

static EDGE: LazyLock<Edge> = LazyLock::new(Edge::start);

fn request(input: &[u8]) -> Option<(Request<Body>, &[u8])> {
    let end = input.windows(2).position(|pair| pair == b"\n\n")?;
    let mut lines = str::from_utf8(&input[..end]).ok()?.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut parts = input[end + 2..].splitn(2, |byte| *byte == 0);
    let body = Bytes::copy_from_slice(parts.next()?);
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = path.parse::<Uri>().ok()?;
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        let name: HeaderName = name.parse().ok()?;
        request.headers_mut().append(name, HeaderValue::from_str(value).ok()?);
    }
    Some((request, parts.next().unwrap_or_default()))
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((request, response)) = request(input) else { return Corpus::Reject };
    EDGE.set_tool_response(response);
    EDGE.runtime.block_on(async {
        if let Some((_, mut body)) = EDGE.send(request, PART_TIMEOUT).await {
            read_rest(&mut body, PART_TIMEOUT).await;
        }
    });
    Corpus::Keep
});
