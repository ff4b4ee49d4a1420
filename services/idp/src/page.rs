//! The pages that people see: sign-in and consent, and what went wrong. They work without scripts.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use crate::{authorize::AuthorizationRequest, metadata, secret, server::Idp, store::PendingId};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    nonce: &'a str,
    request: &'a str,
    client: Option<&'a str>,
    destination: &'a str,
    resource: &'a str,
    scopes: Vec<Scope<'a>>,
    username: &'a str,
    error: Option<&'a str>,
    built_in_users: &'a [String],
}

/// A scope, and what it lets a client do.
struct Scope<'a> {
    name: &'a str,
    means: Option<&'static str>,
}

impl<'a> Scope<'a> {
    fn of(name: &'a String) -> Self {
        let means = match name.as_str() {
            "mcp" => Some("call the tools that you may call, and read what you may read"),
            "openid" => Some("learn who you are"),
            "profile" => Some("learn your name"),
            "email" => Some("learn your e-mail address"),
            "offline_access" => Some("go on while you are away"),
            _ => None,
        };
        Self { name, means }
    }
}

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    nonce: &'a str,
    issuer: &'a str,
    resources: &'a [String],
    metadata: &'a str,
    built_in_users: &'a [String],
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
    idp: &Idp,
    id: &PendingId,
    request: &AuthorizationRequest,
    failed: Option<&Failed<'_>>,
) -> Response {
    let nonce = secret::random();
    let page = SignIn {
        nonce: &nonce,
        request: &id.0,
        client: request.client.name.as_deref(),
        destination: &request.callback.uri.destination(),
        resource: &request.resource,
        scopes: request.scopes.as_slice().iter().map(Scope::of).collect(),
        username: failed.map_or("", |failed| failed.username),
        error: failed.map(|failed| failed.message),
        built_in_users: &idp.users.built_in,
    };
    let status = if failed.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    respond(status, &nonce, page.render())
}

/// What this server is, for a person who opens its address.
pub(crate) async fn home(State(idp): State<Arc<Idp>>) -> Response {
    let nonce = secret::random();
    let page = Home {
        nonce: &nonce,
        issuer: idp.issuer.as_str(),
        resources: &idp.resources,
        metadata: metadata::SERVER_METADATA,
        built_in_users: &idp.users.built_in,
    };
    respond(StatusCode::OK, &nonce, page.render())
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
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'"
    );
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_SECURITY_POLICY, &policy), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Html(page)).into_response()
}
