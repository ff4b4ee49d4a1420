//! The pages that people see: sign-in and consent, and what went wrong. They work without scripts.

use askama::Template;
use axum::{
    http::{HeaderName, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use crate::{authorize::AuthorizationRequest, secret, store::PendingId};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    nonce: &'a str,
    request: &'a str,
    client: &'a str,
    destination: &'a str,
    resource: &'a str,
    scopes: &'a [String],
    username: &'a str,
    error: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Problem<'a> {
    nonce: &'a str,
    message: &'a str,
}

/// A sign-in that failed: the name to show again, and what to say.
pub(crate) struct Failed<'a> {
    pub(crate) username: &'a str,
    pub(crate) message: &'a str,
}

/// Asks who the user is and whether the client may act for them.
pub(crate) fn sign_in(
    id: &PendingId,
    request: &AuthorizationRequest,
    failed: Option<&Failed<'_>>,
) -> Response {
    let nonce = secret::random();
    let page = SignIn {
        nonce: &nonce,
        request: &id.0,
        client: request.client.name.as_deref().unwrap_or("An application without a name"),
        destination: &request.callback.uri.destination(),
        resource: &request.resource,
        scopes: request.scopes.as_slice(),
        username: failed.map_or("", |failed| failed.username),
        error: failed.map(|failed| failed.message),
    };
    let status = if failed.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    respond(status, &nonce, page.render())
}

/// Tells the user of an error that must not go to a redirect URI.
pub(crate) fn problem(status: StatusCode, message: &str) -> Response {
    let nonce = secret::random();
    let page = Problem { nonce: &nonce, message };
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
    // There is no form-action: Chrome holds the redirect that answers a form to it as well, and no source
    // expression fits every redirect URI (`cursor:`, any loopback port). The form is static and all values
    // in the page are escaped, so there is nothing it would stop.
    let policy =
        format!("default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'");
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_SECURITY_POLICY, &policy), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Html(page)).into_response()
}
