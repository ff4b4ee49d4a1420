//! OAuth protected-resource metadata (RFC 9728), served without authentication.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::Path,
    response::{IntoResponse as _, Redirect, Response},
    routing::{MethodRouter, get},
};
use http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use crate::catalog::Catalogs;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The edge as an OAuth protected resource. INVARIANT: all its URLs derive from the configured
/// public URL, never from a request.
#[derive(Clone, Debug)]
pub(crate) struct ProtectedResource {
    public_url: Url,
    scopes: Vec<String>,
    /// Requests for authorization server metadata are redirected to the first one.
    authorization_servers: Vec<String>,
}

/// An endpoint: of all services, of one of them, or of a virtual server.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) resource: Arc<ProtectedResource>,
    pub(crate) namespace: Option<String>,
}

impl Endpoint {
    /// The endpoint at a path: the one for all services, or below it that of the service or virtual
    /// server that the path names, which may not exist.
    pub(crate) fn at(resource: &Arc<ProtectedResource>, path: &str) -> Self {
        let below = path.strip_prefix(resource.path()).unwrap_or_default().trim_matches('/');
        let namespace = Some(below).filter(|below| !below.is_empty()).map(ToOwned::to_owned);
        Self { resource: Arc::clone(resource), namespace }
    }

    /// Its OAuth resource identifier: in canonical form, with its path, without a trailing slash.
    pub(crate) fn resource(&self) -> String {
        let base = self.resource.public_url.as_str().trim_end_matches('/');
        match &self.namespace {
            None => base.to_owned(),
            Some(namespace) => format!("{base}/{namespace}"),
        }
    }

    /// The URL of its metadata.
    pub(crate) fn metadata_url(&self) -> String {
        let path = self.resource.path();
        let mut url = self.resource.public_url.clone();
        url.set_path(&match &self.namespace {
            None => format!("{WELL_KNOWN}{path}"),
            Some(namespace) => format!("{WELL_KNOWN}{path}/{namespace}"),
        });
        url.to_string()
    }

    /// The scopes that its clients should request.
    pub(crate) fn scopes(&self) -> &[String] {
        &self.resource.scopes
    }

    fn document(&self) -> Value {
        let name = self
            .namespace
            .as_ref()
            .map_or("Drawbridge".to_owned(), |name| format!("Drawbridge: {name}"));
        json!({
            "resource": self.resource(),
            "resource_name": name,
            "authorization_servers": self.resource.authorization_servers,
            "bearer_methods_supported": ["header"],
            "scopes_supported": self.resource.scopes,
        })
    }
}

/// All endpoints of the current catalog.
#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(crate) resource: Arc<ProtectedResource>,
    pub(crate) catalogs: Arc<Catalogs>,
}

impl Endpoints {
    /// The endpoint at a path, or the one for all services if it does not exist.
    pub(crate) fn at_or_default(&self, path: &str) -> Endpoint {
        let endpoint = Endpoint::at(&self.resource, path);
        let is_known = |name: &String| self.catalogs.load().has_endpoint(name);
        Endpoint { namespace: endpoint.namespace.filter(is_known), ..endpoint }
    }
}

impl ProtectedResource {
    pub(crate) fn new(
        public_url: &Url,
        authorization_servers: &[String],
        scopes: &[String],
    ) -> Self {
        Self {
            public_url: public_url.clone(),
            scopes: scopes.to_vec(),
            authorization_servers: authorization_servers.to_vec(),
        }
    }

    /// The path of the endpoint for all services, without a trailing slash.
    pub(crate) fn path(&self) -> &str {
        self.public_url.path().trim_end_matches('/')
    }

    /// Whether this path may be that of an endpoint: the path for all services, or one segment
    /// below it. Some clients drop the trailing slash and others do not.
    pub(crate) fn is_endpoint_path(&self, path: &str) -> bool {
        let Some(below) = path.strip_prefix(self.path()) else { return false };
        let name = below.strip_prefix('/').unwrap_or(below);
        let name = name.strip_suffix('/').unwrap_or(name);
        (below.is_empty() || below.starts_with('/')) && !name.contains('/')
    }

    /// Serves the metadata at the root and at the path-suffixed URLs, and redirects clients that
    /// request authorization server metadata here.
    pub(crate) fn routes(self: &Arc<Self>, catalogs: &Arc<Catalogs>) -> Router {
        let path = self.path();
        let default = Endpoint { resource: Arc::clone(self), namespace: None }.document();
        let serve = get(async move || Json(default));
        let mut router = serve_at(Router::new(), WELL_KNOWN, &serve);
        if !path.is_empty() {
            router = serve_at(router, &format!("{WELL_KNOWN}{path}"), &serve);
        }
        let (resource, catalogs) = (Arc::clone(self), Arc::clone(catalogs));
        let of_service = get(async move |Path(namespace): Path<String>| {
            if !catalogs.load().has_endpoint(&namespace) {
                return StatusCode::NOT_FOUND.into_response();
            }
            Json(Endpoint { resource, namespace: Some(namespace) }.document()).into_response()
        });
        router = serve_at(router, &format!("{WELL_KNOWN}{path}/{{namespace}}"), &of_service);
        if let Some(issuer) = self.authorization_servers.first() {
            for name in ["oauth-authorization-server", "openid-configuration"] {
                router = router.merge(self.redirects(name, issuer));
            }
        }
        router
    }

    /// Redirects requests for the authorization server's metadata to the issuer.
    fn redirects(&self, name: &str, issuer: &str) -> Router {
        let target = issuer_metadata_url(issuer, name);
        let redirect =
            get(async move || -> Response { Redirect::temporary(&target).into_response() });
        let source = format!("/.well-known/{name}");
        let mut router = serve_at(Router::new(), &source, &redirect);
        if !self.path().is_empty() {
            router = serve_at(router, &format!("{source}{}", self.path()), &redirect);
        }
        serve_at(router, &format!("{source}{}/{{namespace}}", self.path()), &redirect)
    }
}

/// Serves a path with and without a trailing slash: clients derive the URL from one that a person
/// typed.
fn serve_at(router: Router, path: &str, method: &MethodRouter) -> Router {
    router.route(path, method.clone()).route(&format!("{path}/"), method.clone())
}

/// The URL of an issuer's metadata: RFC 8414 inserts the well-known part before the issuer's path,
/// OpenID Connect Discovery appends it.
fn issuer_metadata_url(issuer: &str, name: &str) -> String {
    let issuer = issuer.trim_end_matches('/');
    match issuer.parse::<Url>() {
        Ok(mut url) if name == "oauth-authorization-server" => {
            let path = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("/.well-known/{name}{path}"));
            url.into()
        }
        _ => format!("{issuer}/.well-known/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_url_of_an_issuer_with_a_path_follows_each_standard() {
        let realm = "https://sso.acme.example/realms/acme/";
        for (issuer, name, expected) in [
            (
                realm,
                "oauth-authorization-server",
                "https://sso.acme.example/.well-known/oauth-authorization-server/realms/acme",
            ),
            (
                realm,
                "openid-configuration",
                "https://sso.acme.example/realms/acme/.well-known/openid-configuration",
            ),
            (
                "http://a:1",
                "oauth-authorization-server",
                "http://a:1/.well-known/oauth-authorization-server",
            ),
            ("http://a:1", "openid-configuration", "http://a:1/.well-known/openid-configuration"),
        ] {
            assert_eq!(issuer_metadata_url(issuer, name), expected);
        }
    }
}
