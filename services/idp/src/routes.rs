//! The routes of all endpoints, and their common layers.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, Method, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use drawbridge_runtime::{
    REQUEST_ID, RequestId,
    http_metrics::{known_method, record_request},
    security_headers, trace,
};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, Any, CorsLayer},
    limit::RequestBodyLimitLayer,
    timeout::TimeoutLayer,
};
use tracing::{Instrument as _, field::Empty};

use crate::{authorize, metadata, page, register, server::Idp, token};

const BODY_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(3600);

pub(crate) fn router(idp: Arc<Idp>) -> Router {
    // Browser clients of any origin may call these. There are no cookies, so all origins are equal.
    let for_clients = Router::new()
        .route(metadata::SERVER_METADATA, get(metadata::server_metadata))
        // A trailing slash is accepted: clients build the URL from one that a user typed.
        .route("/.well-known/oauth-authorization-server/", get(metadata::server_metadata))
        .route("/.well-known/openid-configuration", get(metadata::server_metadata))
        .route("/.well-known/openid-configuration/", get(metadata::server_metadata))
        .route(metadata::JWKS, get(metadata::jwks))
        .route(metadata::TOKEN, post(token::token))
        .route(metadata::REGISTER, post(register::register))
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods([Method::GET, Method::POST])
                // `*` would not cover Authorization.
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers([header::WWW_AUTHENTICATE, HeaderName::from_static(REQUEST_ID)])
                .max_age(PREFLIGHT_LIFETIME),
        );
    // Users navigate to these; scripts of other origins have no access.
    let for_people = Router::new()
        .route("/", get(page::home))
        .route(metadata::AUTHORIZE, get(authorize::show).post(authorize::decide))
        .layer(middleware::from_fn_with_state(Arc::clone(&idp), reject_rebinding));
    let layers = ServiceBuilder::new()
        // Trace, request id, duration.
        .layer(middleware::from_fn_with_state(Arc::clone(&idp), observe))
        // A panic fails only its own request.
        .layer(CatchPanicLayer::custom(panicked))
        // Covers reading the body too.
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX));
    for_clients.merge(for_people).layer(layers).with_state(idp)
}

/// The response after a panic. It names the request, and not the cause.
#[expect(clippy::needless_pass_by_value, reason = "the layer passes it by value")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text, "a request handler panicked");
    page::problem(StatusCode::INTERNAL_SERVER_ERROR, "This server has failed. Try again.")
}

/// Sets the request id and the span, records the duration, and adds security headers. Neither span
/// nor metrics contain the query, which has codes and states.
async fn observe(State(idp): State<Arc<Idp>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::from_headers(request.headers());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map(MatchedPath::as_str);
    let method = request.method().clone();
    let span = tracing::info_span!(
        "http",
        otel.name = format!("{} {}", known_method(&method), route.unwrap_or("unknown")),
        otel.kind = "server",
        http.request.method = known_method(&method),
        http.route = route,
        http.response.status_code = Empty,
        error.type = Empty,
        otel.status_code = Empty,
        request_id = %id,
        trace_id = Empty,
    );
    trace::continue_from(&span, &trace::Headers(request.headers()));

    let mut response =
        page::REQUEST.scope(id.clone(), next.run(request)).instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id.header());
    security_headers(response.headers_mut(), idp.issuer.is_https());
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str()).record("otel.status_code", "ERROR");
    }
    record_request(&method, route, response.status(), started.elapsed());
    response
}

/// Rejects requests for the sign-in page under a foreign host name. A web page whose name resolves
/// to this machine's loopback address would otherwise share its origin, and could read and post the
/// form with the well-known development passwords (DNS rebinding). Addresses and `localhost` cannot
/// resolve to other hosts.
async fn reject_rebinding(State(idp): State<Arc<Idp>>, request: Request, next: Next) -> Response {
    let host =
        request.headers().get(header::HOST).and_then(|value| value.to_str().ok()?.parse().ok());
    let authority: Option<Authority> = host.or_else(|| request.uri().authority().cloned());
    let known = authority.is_some_and(|authority| {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || host.eq_ignore_ascii_case(idp.issuer.host())
    });
    if known {
        return next.run(request).await;
    }
    tracing::info!("rejected a request under a foreign host name");
    page::problem(
        StatusCode::MISDIRECTED_REQUEST,
        "This page was opened under a name that is not this server's. \
         Use the address in its configuration.",
    )
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt as _;

    use super::*;

    async fn panics() -> &'static str {
        panic!("the cause")
    }

    #[tokio::test]
    async fn the_page_after_a_panic_names_the_request_and_not_the_cause() {
        let router = Router::new().route("/", get(panics));
        let router = router.layer(CatchPanicLayer::custom(panicked));
        let id = RequestId::generate();
        let call = router.oneshot(Request::new(Body::empty()));
        let response = page::REQUEST.scope(id.clone(), call).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await.unwrap();
        let page = String::from_utf8(body.to_vec()).unwrap();
        assert!(page.contains(id.as_str()) && !page.contains("the cause"), "{page}");
    }
}
