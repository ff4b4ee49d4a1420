//! The state shared by all endpoints, their routes, and the common layers.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, Method, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use drawbridge_runtime::{REQUEST_ID, RequestId, security_headers, trace};
use metrics::histogram;
use secrecy::ExposeSecret as _;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, Any, CorsLayer},
    limit::RequestBodyLimitLayer,
    timeout::TimeoutLayer,
};
use tracing::{Instrument as _, field::Empty};

use crate::{
    Config, StartError, authorize,
    client::Client,
    grant::{Grant, Scopes},
    keys::SigningKey,
    metadata::{self, Issuer},
    page, register,
    revoker::Revoker,
    sign_in_limiter::SignInLimiter,
    state_file::{Snapshot, StateFile, StateFileError},
    store::Store,
    token,
    users::Users,
};

const BODY_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Schemes that browsers execute, render or handle themselves, so that no application handles them.
const UNSAFE_SCHEMES: [&str; 12] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "javascript",
    "mailto",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];
const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(3600);

/// The state shared by all endpoints.
pub(crate) struct Idp {
    pub(crate) issuer: Issuer,
    pub(crate) resources: Vec<String>,
    pub(crate) scopes: Scopes,
    pub(crate) access_token_lifetime: Duration,
    pub(crate) code_lifetime: Duration,
    pub(crate) users: Users,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) store: Store,
    pub(crate) sign_in_limiter: SignInLimiter,
    pub(crate) redirect_schemes: Vec<String>,
    internal_resources: Vec<String>,
    /// Absent: access tokens remain valid until they expire.
    revoker: Option<Arc<Revoker>>,
    state_file: Option<Arc<StateFile>>,
}

impl Idp {
    pub(crate) fn new(
        issuer: Issuer,
        config: &Config,
        users: Users,
        key: Arc<SigningKey>,
        revoker: Option<Arc<Revoker>>,
    ) -> Result<Self, StartError> {
        if config.resources.is_empty() {
            return Err(StartError::NoResource);
        }
        let unsafe_scheme = config.redirect_schemes.iter().find(|scheme| is_unsafe(scheme));
        if let Some(scheme) = unsafe_scheme {
            return Err(StartError::RedirectScheme { scheme: scheme.clone() });
        }
        let mut configured: Vec<_> = users.workloads.iter().map(Client::workload).collect();
        for client in &users.clients {
            let redirect = || StartError::RedirectUri { client_id: client.client_id.clone() };
            configured.push(Client::configured(client).map_err(|_| redirect())?);
        }
        Ok(Self {
            issuer,
            resources: config.resources.clone(),
            scopes: Scopes::new(&config.scopes).ok_or(StartError::Scope)?,
            access_token_lifetime: lifetime(config.access_token_ttl_seconds),
            code_lifetime: lifetime(config.code_ttl_seconds),
            users,
            key,
            store: Store::new(
                configured,
                config.registrations_of_address_max,
                config.sign_ins_of_address_max,
                lifetime(config.refresh_token_ttl_seconds),
            ),
            sign_in_limiter: SignInLimiter::new(
                config.sign_in_failures_max,
                lifetime(config.sign_in_lock_seconds),
            ),
            redirect_schemes: config.redirect_schemes.clone(),
            internal_resources: config.internal_resources.clone(),
            revoker,
            state_file: None,
        })
    }

    /// Restores the contents of a state file, and updates the file from now on.
    pub(crate) async fn restore(&mut self, file: StateFile, saved: Option<Snapshot>) {
        if let Some(saved) = saved {
            let is_resource =
                |resource: &str| self.resource(Some(resource), true) == Some(resource);
            self.store.restore(saved, is_resource, &self.scopes).await;
        }
        self.state_file = Some(Arc::new(file));
    }

    /// Writes changes to the state file, if there is one, and logs failures.
    pub(crate) async fn save(self: &Arc<Self>) {
        if let Err(error) = self.try_save().await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "clients and refresh tokens would be lost in a restart");
        }
    }

    /// Writes changes to the state file, if there is one.
    pub(crate) async fn try_save(self: &Arc<Self>) -> Result<(), StateFileError> {
        let Some(file) = &self.state_file else { return Ok(()) };
        let idp = Arc::clone(self);
        file.write(move || idp.store.snapshot(idp.key.saved().expose_secret().to_owned())).await
    }

    /// Ends a grant and revokes its access tokens.
    pub(crate) async fn revoke(self: &Arc<Self>, grant: &Grant) {
        let tokens = grant.revoke();
        self.save().await;
        if let Some(revoker) = &self.revoker {
            Arc::clone(revoker).revoke(tokens).await;
        }
    }

    /// The configured resource that matches the requested one, ignoring a trailing slash; internal
    /// resources only if `internal`. Without a requested resource the first one, for clients
    /// without RFC 8707.
    pub(crate) fn resource(&self, requested: Option<&str>, internal: bool) -> Option<&str> {
        let Some(requested) = requested else { return self.resources.first().map(String::as_str) };
        let same = |resource: &&String| without_slash(resource) == without_slash(requested);
        let internal = self.internal_resources.iter().filter(|_| internal);
        self.resources.iter().chain(internal).find(same).map(String::as_str)
    }
}

fn is_unsafe(scheme: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let is_scheme =
        scheme.starts_with(|first: char| first.is_ascii_lowercase()) && scheme.bytes().all(allowed);
    !is_scheme || UNSAFE_SCHEMES.contains(&scheme)
}

fn without_slash(resource: &str) -> &str {
    resource.strip_suffix('/').unwrap_or(resource)
}

/// Limited here too, because a `Config` need not come from the command line.
fn lifetime(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(crate::TTL_SECONDS_MAX))
}

pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

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
        .layer(CatchPanicLayer::new())
        // Covers reading the body too.
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX));
    for_clients.merge(for_people).layer(layers).with_state(idp)
}

/// Sets the request id and the span, records the duration, and adds security headers. Neither span
/// nor metrics contain the query, which has codes and states.
async fn observe(State(idp): State<Arc<Idp>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::from_headers(request.headers());
    // Only known routes, so that callers cannot create metric labels.
    let route =
        request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::POST => "POST",
        _ => "_OTHER",
    };
    let span = tracing::info_span!(
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        request_id = %id,
        trace_id = Empty,
    );
    trace::continue_from(&span, &trace::Headers(request.headers()));

    let mut response = next.run(request).instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id.header());
    security_headers(response.headers_mut(), idp.issuer.is_https());
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    histogram!(
        "http_server_request_duration_seconds",
        "http_request_method" => method,
        "http_route" => route,
        "http_response_status_code" => status.to_string(),
    )
    .record(started.elapsed());
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
