//! What every HTTP request meets first: a request id, and the checks of Host and Origin that keep a page
//! from reaching the edge through a browser (DNS rebinding).

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use drawbridge_sdk::{CallerRequestId, REQUEST_ID, RequestId, TXN_TOKEN, security_headers};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::Value;
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::{Origin, Url};

use crate::{
    Config, StartError,
    admission::{self, Gate, close, cut},
    metadata::Endpoint,
    refusal::Refusal,
    traffic::limits::{RATE_LIMIT, RATE_LIMIT_POLICY},
};

pub use self::client_address::ForwardedBy;
use self::client_address::Proxies;

pub(crate) mod client_address;
pub(crate) mod page;

const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);
/// Headers that decide something, and therefore stand once: with two of them, a proxy and the edge may each believe
/// another.
const SINGLE: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("mcp-session-id"),
];
/// Names of this machine alone.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

#[derive(Clone, Debug)]
pub(crate) struct Front {
    hosts: Vec<String>,
    origins: Vec<Origin>,
    endpoint: Endpoint,
    proxies: Proxies,
    /// Whether clients reach the edge over TLS, here or at a proxy.
    over_tls: bool,
}

impl Front {
    pub(crate) fn new(config: &Config, endpoint: Endpoint) -> Result<Self, StartError> {
        let mut origins = vec![config.public_url.origin()];
        for text in &config.allowed_origins {
            let origin = Url::parse(text).map(|url| url.origin()).ok().filter(Origin::is_tuple);
            origins.push(origin.ok_or_else(|| StartError::Origin(text.clone()))?);
        }
        let mut hosts = config.allowed_hosts.clone();
        hosts.extend(own_hosts(&config.public_url));
        hosts.iter_mut().for_each(|host| host.make_ascii_lowercase());
        let proxies = Proxies { hops: config.trusted_hops, told_by: config.forwarded_by };
        let over_tls = config.public_url.scheme() == "https";
        Ok(Self { hosts, origins, endpoint, proxies, over_tls })
    }

    /// What browsers may do, for the allowed origins.
    pub(crate) fn cors(&self) -> CorsLayer {
        let origins = self.origins.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| is_allowed(&origins, origin)))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            // `Mcp-Param-*` has no fixed names, so what the preflight asks for is what is allowed.
            .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
            .expose_headers([
                header::WWW_AUTHENTICATE,
                header::RETRY_AFTER,
                RATE_LIMIT,
                RATE_LIMIT_POLICY,
                HeaderName::from_static("mcp-session-id"),
                HeaderName::from_static(REQUEST_ID),
            ])
            .max_age(PREFLIGHT_MAX_AGE)
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        // With two of them, a proxy and the edge may each believe another (RFC 9112 section 3.2).
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Err(Refusal::Host);
        }
        // HTTP/2 has the host in the URI.
        let host = uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok());
        if !host.is_some_and(|host| self.hosts.contains(&host.to_ascii_lowercase())) {
            return Err(Refusal::Host);
        }
        if SINGLE.iter().any(|name| headers.get_all(name).iter().nth(1).is_some()) {
            return Err(Refusal::Headers("a header is given twice that may be given once"));
        }
        // Coded twice, it is a body that two readers take for two (RFC 9112 section 6.1).
        let coding = headers.get(header::TRANSFER_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Err(Refusal::Headers("the Transfer-Encoding must be chunked, once"));
        }
        let origins = || headers.get_all(header::ORIGIN).iter();
        if !origins().all(is_origin) {
            return Err(Refusal::Headers("the Origin header is not an origin"));
        }
        if !origins().all(|origin| is_allowed(&self.origins, origin)) {
            return Err(Refusal::Origin);
        }
        // Nothing is unpacked here, so nothing can grow.
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        if !encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::ContentEncoding);
        }
        Ok(())
    }
}

/// The hosts that a public URL goes by. A loopback address goes by each of its names.
fn own_hosts(public_url: &Url) -> Vec<String> {
    let host = public_url.host_str().unwrap_or_default();
    let names = if LOOPBACK.contains(&host) { LOOPBACK.to_vec() } else { vec![host] };
    match public_url.port() {
        Some(port) => names.into_iter().map(|name| format!("{name}:{port}")).collect(),
        None => {
            let default = public_url.port_or_known_default().unwrap_or_default();
            names
                .into_iter()
                .flat_map(|name| [name.to_owned(), format!("{name}:{default}")])
                .collect()
        }
    }
}

/// Whether it is an origin as RFC 6454 section 7 writes one: `null`, or scheme, host and port. A `blob:` URL has
/// the origin of the page that made it, and is none.
fn is_origin(header: &HeaderValue) -> bool {
    let Ok(text) = header.to_str() else { return false };
    text == "null"
        || Url::parse(text).is_ok_and(|url| {
            let authority = text.split_once("://").map_or("", |(_, authority)| authority);
            url.has_host() && !authority.is_empty() && !authority.contains(['/', '?', '#', '@'])
        })
}

fn is_allowed(origins: &[Origin], origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    origin.is_some_and(|origin| origins.contains(&origin.origin()))
}

/// Answers every request: gives it an id of its own and its client's address, strips what only the inside may say,
/// and refuses a foreign Host or Origin. What it is answered says what browsers may make of it.
pub(crate) struct Ingress {
    pub(crate) front: Front,
    pub(crate) gate: Arc<Gate>,
    /// Everything but the calls of MCP clients.
    pub(crate) router: Router,
}

impl Ingress {
    /// Answers a request.
    pub(crate) async fn answer(&self, mut request: Request) -> Response {
        let started = Instant::now();
        let request_id = RequestId::generate();
        let caller_request_id = RequestId::of_caller(request.headers()).map(CallerRequestId);
        let client = self.front.proxies.client(&request);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        // The transaction token is the inside's; nobody outside has one to show.
        request.headers_mut().remove(TXN_TOKEN);
        request.extensions_mut().insert(request_id.clone());
        if let Some(id) = &caller_request_id {
            request.extensions_mut().insert(id.clone());
        }
        request.extensions_mut().insert(client);
        let mut response = match self.front.check(request.uri(), request.headers()) {
            Ok(()) => {
                let answering = AssertUnwindSafe(self.route(request)).catch_unwind();
                answering.await.unwrap_or_else(|panic| panicked(&*panic, &request_id))
            }
            Err(refusal) => {
                let version = request.version();
                let mut response =
                    refusal.into_response(Value::Null, &request_id, &self.front.endpoint);
                // Nothing is read from whoever was led here by a foreign page.
                close(&mut response, version);
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, request_id.header());
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        security_headers(headers, self.front.over_tls);
        // The query is left out: a token may be in it.
        tracing::info!(
            %request_id,
            caller_request_id = caller_request_id.as_ref().map(CallerRequestId::as_str),
            client.address = %client.0,
            http.request.method = cut(method.as_str()),
            url.path = cut(uri.path()),
            http.response.status_code = response.status().as_u16(),
            elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered",
        );
        response
    }

    /// The calls of MCP clients go straight to admission: only pages of a browser send an Origin, and nobody else reads
    /// what CORS adds.
    async fn route(&self, request: Request) -> Response {
        let is_call = request.method() == Method::POST
            && !request.headers().contains_key(header::ORIGIN)
            && self.front.endpoint.resource.has(request.uri().path());
        if is_call {
            return admission::pass(State(Arc::clone(&self.gate)), request).await;
        }
        self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

/// The answer where the code is wrong.
fn panicked(panic: &(dyn Any + Send), request_id: &RequestId) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(%request_id, panic = text, "answering a request panicked");
    (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response()
}
