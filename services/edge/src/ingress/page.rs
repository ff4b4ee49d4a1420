//! The page for a person who opens the edge in a browser: how to connect an AI client.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use http::{HeaderMap, Method, StatusCode, header};

use crate::metadata::{Endpoint, Endpoints};

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    url: &'a str,
    metadata_url: &'a str,
}

/// Serves the page at the edge's root, for a person who omits the path of the endpoint.
pub(crate) fn route(endpoint: &Endpoint) -> Router {
    let page = page(endpoint);
    Router::new().route("/", get(async move || page.clone()))
}

/// Serves a browser that opens an MCP endpoint the page instead of a JSON error. Status and
/// challenge stay, so that an MCP client that requests HTML still finds the authorization server.
pub(crate) async fn serve_browsers(
    State(endpoints): State<Arc<Endpoints>>,
    request: Request,
    next: Next,
) -> Response {
    let is_navigation = request.method() == Method::GET && prefers_html(request.headers());
    let endpoint = is_navigation.then(|| endpoints.at_or_default(request.uri().path()));
    let response = next.run(request).await;
    let Some(endpoint) = endpoint.filter(|_| response.status() == StatusCode::UNAUTHORIZED) else {
        return response;
    };
    let (mut parts, _) = response.into_parts();
    let (page, body) = page(&endpoint).into_response().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(page.headers);
    Response::from_parts(parts, Body::new(body))
}

/// Whether a person will read the response. MCP clients do not prefer HTML.
fn prefers_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.trim_start().starts_with("text/html"))
}

fn page(endpoint: &Endpoint) -> Html<String> {
    let (url, metadata_url) = (endpoint.resource(), endpoint.metadata_url());
    let page = Home { url: &url, metadata_url: &metadata_url }.render();
    // INVARIANT: writing to a string does not fail.
    Html(page.unwrap_or_default())
}
