//! Ingress: every HTTP request gets a request id, and its Host and Origin are checked, so that no
//! page can reach the edge through a browser (DNS rebinding).

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use drawbridge_runtime::{
    CallerRequestId, REQUEST_ID, RequestId, http_metrics::record_request, security_headers,
};
use drawbridge_transport::TXN_TOKEN;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::Value;
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;
use url::{Origin, Url};

use crate::{
    Config, StartError,
    admission::{self, AdmissionState, announce_close},
    metadata::Endpoint,
    refusal::Refusal,
    request_log::{RequestLog, ServerAddress, http_span},
    traffic::limits::{ClientAddress, RATE_LIMIT, RATE_LIMIT_POLICY},
};

pub use self::client_address::ForwardedBy;
pub(crate) use self::router::router;
use self::{client_address::Proxies, router::Route};

mod anonymous;
mod client_address;
mod page;
mod router;

const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);
/// Headers that affect a decision and therefore must not be repeated: a proxy and the edge could
/// each use another of the values.
const UNREPEATABLE: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("mcp-session-id"),
];
/// Names of the loopback interface.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The HTTP requests that the edge accepts.
#[derive(Clone, Debug)]
pub(crate) struct IngressPolicy {
    hosts: Vec<String>,
    origins: Vec<Origin>,
    endpoint: Endpoint,
    proxies: Proxies,
    /// Whether clients reach the edge over TLS, here or at a proxy.
    over_tls: bool,
    server: ServerAddress,
}

impl IngressPolicy {
    pub(crate) fn new(config: &Config, endpoint: Endpoint) -> Result<Self, StartError> {
        let mut origins = vec![config.public_url.origin()];
        for text in &config.allowed_origins {
            let origin = Url::parse(text).map(|url| url.origin()).ok().filter(Origin::is_tuple);
            origins.push(origin.ok_or_else(|| StartError::Origin(text.clone()))?);
        }
        let mut hosts = config.allowed_hosts.clone();
        hosts.extend(own_hosts(&config.public_url));
        hosts.iter_mut().for_each(|host| host.make_ascii_lowercase());
        let proxies = Proxies { hops: config.trusted_hops, header: config.forwarded_by };
        let over_tls = config.public_url.scheme() == "https";
        let server = ServerAddress::of(&config.public_url);
        Ok(Self { hosts, origins, endpoint, proxies, over_tls, server })
    }

    /// What pages of the allowed origins may do.
    pub(crate) fn cors(&self) -> CorsLayer {
        let origins = self.origins.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| is_allowed(&origins, origin)))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            // `Mcp-Param-*` has no fixed names, so a preflight is granted the headers that it
            // requests.
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
        // A proxy and the edge could each use another of two values (RFC 9112 section 3.2).
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Err(Refusal::Host);
        }
        // In HTTP/2 the URI contains the host.
        let host = uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok());
        if !host.is_some_and(|host| self.hosts.contains(&host.to_ascii_lowercase())) {
            return Err(Refusal::Host);
        }
        if UNREPEATABLE.iter().any(|name| headers.get_all(name).iter().nth(1).is_some()) {
            return Err(Refusal::Headers("a header that must not be repeated is repeated"));
        }
        // Two parsers could disagree on the length of a body with several codings (RFC 9112 section
        // 6.1).
        let coding = headers.get(header::TRANSFER_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Err(Refusal::Headers("the Transfer-Encoding must be a single `chunked`"));
        }
        let origins = || headers.get_all(header::ORIGIN).iter();
        if !origins().all(is_origin) {
            return Err(Refusal::Headers(
                "invalid Origin header (expected e.g. https://app.example.com)",
            ));
        }
        if !origins().all(|origin| is_allowed(&self.origins, origin)) {
            return Err(Refusal::Origin);
        }
        // The edge decompresses nothing, so a compression bomb cannot expand.
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        if !encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::ContentEncoding);
        }
        Ok(())
    }
}

/// The `Host` values of a public URL. A loopback address has several names.
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

/// Whether a header is an origin (RFC 6454 section 7): `null`, or scheme, host and port. A `blob:`
/// URL is not, although it has the origin of the page that created it.
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

/// Handles every request: assigns its id and its client's address, removes the headers that are
/// internal, and rejects a foreign Host or Origin. It adds security headers to every response.
pub(crate) struct Ingress {
    pub(crate) policy: IngressPolicy,
    pub(crate) admission: Arc<AdmissionState>,
    /// Serves all requests except the calls of MCP clients.
    pub(crate) router: Router,
}

impl Ingress {
    /// Handles a request.
    pub(crate) async fn handle(&self, mut request: Request) -> Response {
        let log = Arc::new(self.begin(&request));
        let request_id = log.request_id.clone();
        let (method, is_call) = (request.method().clone(), self.is_call(&request));
        // Transaction tokens are internal: no client may send one.
        request.headers_mut().remove(TXN_TOKEN);
        request.extensions_mut().insert(request_id.clone());
        if let Some(id) = &log.caller_request_id {
            request.extensions_mut().insert(id.clone());
        }
        request.extensions_mut().insert(ClientAddress(log.client_address));
        request.extensions_mut().insert(Arc::clone(&log));
        let mut response = match self.policy.check(request.uri(), request.headers()) {
            Ok(()) => {
                let routing = AssertUnwindSafe(self.route(request)).catch_unwind();
                routing
                    .instrument(log.span.clone())
                    .await
                    .unwrap_or_else(|panic| panic_response(&*panic, &request_id))
            }
            Err(refusal) => {
                let version = request.version();
                let mut response =
                    refusal.into_response(Value::Null, &request_id, &self.policy.endpoint);
                // The body is not read: a foreign page may have caused this request.
                announce_close(&mut response, version);
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, request_id.header());
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        security_headers(headers, self.policy.over_tls);
        let route = response.extensions().get::<Route>().map(Route::as_str);
        record_request(&method, route, response.status(), log.started.elapsed());
        if let (false, Some(route)) = (is_call, route) {
            log.span.record("http.route", route);
        }
        let (head, body) = response.into_parts();
        let body = log.responded(head.status, body);
        Response::from_parts(head, body)
    }

    /// Begins the span and the log line of a request.
    fn begin(&self, request: &Request) -> RequestLog {
        let request_id = RequestId::generate();
        let caller_request_id = RequestId::from_caller(request.headers()).map(CallerRequestId);
        let client_address = self.policy.proxies.client(request).0;
        let (method, path) = (request.method().as_str(), request.uri().path());
        let route = self.is_call(request).then(|| self.call_route(path));
        let span = http_span(
            (&request_id, caller_request_id.as_ref(), client_address),
            (method, path, request.version()),
            route.as_ref().map(Route::as_str),
            &self.policy.server,
            request.headers(),
        );
        RequestLog::new(request_id, caller_request_id, client_address, method, path, span)
    }

    fn is_call(&self, request: &Request) -> bool {
        request.method() == Method::POST
            && self.policy.endpoint.resource.is_endpoint_path(request.uri().path())
    }

    /// The calls of MCP clients go directly to admission: only browsers send an Origin and need the
    /// headers of CORS.
    async fn route(&self, request: Request) -> Response {
        if self.is_call(&request) && !request.headers().contains_key(header::ORIGIN) {
            let route = self.call_route(request.uri().path());
            let mut response = admission::admit(State(Arc::clone(&self.admission)), request).await;
            response.extensions_mut().insert(route);
            return response;
        }
        self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    /// The route of a call at this path, as the router names it.
    fn call_route(&self, path: &str) -> Route {
        let endpoint = self.policy.endpoint.resource.path();
        if path.trim_end_matches('/') == endpoint {
            return Route::new(endpoint);
        }
        Route::new(&format!("{endpoint}/{{namespace}}"))
    }
}

/// The response after a panic.
fn panic_response(panic: &(dyn Any + Send), request_id: &RequestId) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(%request_id, panic = text, "a request handler panicked");
    let body = format!("internal error; request id {request_id}\n");
    (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_body_after_a_panic_names_the_request_and_not_the_cause() {
        let (id, cause) = (RequestId::generate(), "the cause".to_owned());
        let response = panic_response(&cause, &id);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(id.as_str()) && !body.contains(&cause), "{body}");
    }
}
