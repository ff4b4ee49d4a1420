//! HTML pages: sign-in and consent, and errors. They work without scripts.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use drawbridge_runtime::RequestId;

use crate::{metadata, pending::AuthorizationRequest, secret, server::Idp, store::PendingId};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    nonce: &'a str,
    request: &'a str,
    client: Option<&'a str>,
    destination: &'a str,
    resource: &'a str,
    scopes: Vec<ScopeView<'a>>,
    username: &'a str,
    error: Option<&'a str>,
    built_in_users: &'a [String],
}

/// A scope with its description for users.
struct ScopeView<'a> {
    name: &'a str,
    description: Option<&'static str>,
}

impl<'a> ScopeView<'a> {
    fn new(name: &'a String) -> Self {
        let description = match name.as_str() {
            "mcp" => Some("call the tools that you may call, and read what you may read"),
            "openid" => Some("learn who you are"),
            "profile" => Some("learn your name"),
            "email" => Some("learn your e-mail address"),
            "offline_access" => Some("continue while you are away"),
            _ => None,
        };
        Self { name, description }
    }
}

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage<'a> {
    nonce: &'a str,
    issuer: &'a str,
    resources: &'a [String],
    metadata: &'a str,
    built_in_users: &'a [String],
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    nonce: &'a str,
    message: &'a str,
    /// Empty outside of a request.
    request_id: &'a str,
}

tokio::task_local! {
    /// The id of the request that is handled, which error pages name.
    pub(crate) static REQUEST: RequestId;
}

/// A failed sign-in: the user name to show again, and a message.
pub(crate) struct SignInError<'a> {
    pub(crate) username: &'a str,
    pub(crate) message: &'a str,
}

/// Asks for the user's credentials and consent.
pub(crate) fn sign_in(
    idp: &Idp,
    id: &PendingId,
    request: &AuthorizationRequest,
    failed: Option<&SignInError<'_>>,
) -> Response {
    let nonce = secret::random();
    let page = SignInPage {
        nonce: &nonce,
        request: &id.0,
        client: request.client.name.as_deref(),
        destination: &request.callback.uri.destination(),
        resource: &request.resource,
        scopes: request.scopes.as_slice().iter().map(ScopeView::new).collect(),
        username: failed.map_or("", |failed| failed.username),
        error: failed.map(|failed| failed.message),
        built_in_users: &idp.users.built_in,
    };
    let status = if failed.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    respond(status, &nonce, page.render())
}

/// A description of this server, for users who open its address.
pub(crate) async fn home(State(idp): State<Arc<Idp>>) -> Response {
    let nonce = secret::random();
    let page = HomePage {
        nonce: &nonce,
        issuer: idp.issuer.as_str(),
        resources: &idp.resources,
        metadata: metadata::SERVER_METADATA,
        built_in_users: &idp.users.built_in,
    };
    respond(StatusCode::OK, &nonce, page.render())
}

/// Shows an error that must not be sent to a redirect URI.
pub(crate) fn problem(status: StatusCode, message: &str) -> Response {
    let nonce = secret::random();
    let request_id = REQUEST.try_with(ToString::to_string).unwrap_or_default();
    let page = ProblemPage { nonce: &nonce, message, request_id: &request_id };
    respond(status, &nonce, page.render())
}

fn respond(status: StatusCode, nonce: &str, page: askama::Result<String>) -> Response {
    let page = match page {
        Ok(page) => page,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot render a page");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    // There is no form-action: Chrome applies it to the redirect after a form too, and no source
    // expression covers every redirect URI (`cursor:`, any loopback port). The form is static and
    // all values in the page are escaped, so form-action would prevent nothing.
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'"
    );
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_SECURITY_POLICY, &policy), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Html(page)).into_response()
}
