//! The routes of the edge.

use std::sync::Arc;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{self, Next},
    response::Response,
    routing::any,
};

use super::{
    IngressPolicy,
    anonymous::{AnonymousLimits, limit_anonymous},
    page,
};
use crate::{
    admission::{self, AdmissionState},
    metadata::{Endpoint, Endpoints},
};

/// Routes the MCP endpoints to admission, and applies the limits of addresses to public routes.
pub(crate) fn router(
    policy: &IngressPolicy,
    admission: &Arc<AdmissionState>,
    metadata: Router,
) -> Router {
    let path = admission.resource.path().to_owned();
    // Some clients drop the trailing slash and others do not. The endpoints of single services are
    // below.
    let mut paths =
        vec![format!("{path}/"), format!("{path}/{{namespace}}"), format!("{path}/{{namespace}}/")];
    if !path.is_empty() {
        paths.push(path);
    }
    let endpoint = Endpoint { resource: Arc::clone(&admission.resource), namespace: None };
    // If the MCP endpoint is the root, `serve_browsers` serves the page there.
    let is_root = admission.resource.path().is_empty();
    let home = if is_root { Router::new() } else { page::route(&endpoint) };
    let anonymous = AnonymousLimits { limits: Arc::clone(&admission.limits), endpoint };
    let limits = middleware::from_fn_with_state(Arc::new(anonymous), limit_anonymous);
    let endpoints = Endpoints {
        resource: Arc::clone(&admission.resource),
        catalogs: Arc::clone(&admission.catalogs),
    };
    let metadata = metadata.merge(home).route_layer(limits);
    let mcp = paths.iter().fold(Router::new(), |mcp, path| mcp.route(path, any(admission::admit)));
    mcp.route_layer(middleware::from_fn_with_state(Arc::new(endpoints), page::serve_browsers))
        .with_state(Arc::clone(admission))
        .merge(metadata)
        .layer(policy.cors())
        .layer(middleware::from_fn(note_route))
}

/// The route that served a request, as a template: an extension of its response.
#[derive(Clone, Debug)]
pub(super) struct Route(String);

impl Route {
    /// The route with this template. With or without a trailing slash it is the same.
    pub(super) fn new(template: &str) -> Self {
        let template = template.trim_end_matches('/');
        Self(if template.is_empty() { "/".to_owned() } else { template.to_owned() })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

async fn note_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| Route::new(path.as_str()));
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}
