//! OAuth protected-resource metadata (RFC 9728), served to anybody.

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

/// The edge as an OAuth protected resource. All its URLs come from the configured public URL, never from a
/// request.
#[derive(Clone, Debug)]
pub(crate) struct ProtectedResource {
    public_url: Url,
    scopes: Vec<String>,
    /// The first is where clients are sent that look for its metadata here.
    authorization_servers: Vec<String>,
}

/// One endpoint: all services, one of them, or a virtual server.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) resource: Arc<ProtectedResource>,
    pub(crate) namespace: Option<String>,
}

impl Endpoint {
    /// The endpoint at a path: the one for all services, or below it the one for the service or virtual server that
    /// the path names, whether there is one of this name or not.
    pub(crate) fn at(resource: &Arc<ProtectedResource>, path: &str) -> Self {
        let below = path.strip_prefix(resource.path()).unwrap_or_default().trim_matches('/');
        let namespace = Some(below).filter(|below| !below.is_empty()).map(ToOwned::to_owned);
        Self { resource: Arc::clone(resource), namespace }
    }

    /// The OAuth resource that it is: one canonical form, with its path, without a trailing slash.
    pub(crate) fn resource(&self) -> String {
        let base = self.resource.public_url.as_str().trim_end_matches('/');
        match &self.namespace {
            None => base.to_owned(),
            Some(namespace) => format!("{base}/{namespace}"),
        }
    }

    /// Where its metadata is.
    pub(crate) fn metadata_url(&self) -> String {
        let path = self.resource.path();
        let mut url = self.resource.public_url.clone();
        url.set_path(&match &self.namespace {
            None => format!("{WELL_KNOWN}{path}"),
            Some(namespace) => format!("{WELL_KNOWN}{path}/{namespace}"),
        });
        url.to_string()
    }

    /// Scopes that its clients are told to ask for.
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

/// All endpoints, those of the catalog as it is now.
#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(crate) resource: Arc<ProtectedResource>,
    pub(crate) catalogs: Arc<Catalogs>,
}

impl Endpoints {
    /// The endpoint at a path, or the one for all services where there is none.
    pub(crate) fn at_or_whole(&self, path: &str) -> Endpoint {
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

    /// Whether an endpoint can be at this path: the one for all services, or below it one of a name. Clients differ in
    /// whether they keep the slash.
    pub(crate) fn has(&self, path: &str) -> bool {
        let Some(below) = path.strip_prefix(self.path()) else { return false };
        let name = below.strip_prefix('/').unwrap_or(below);
        let name = name.strip_suffix('/').unwrap_or(name);
        (below.is_empty() || below.starts_with('/')) && !name.contains('/')
    }

    /// The metadata at the root and at the path-suffixed URLs, and the way to the authorization server for
    /// clients that look for it here.
    pub(crate) fn routes(self: &Arc<Self>, catalogs: &Arc<Catalogs>) -> Router {
        let path = self.path();
        let whole = Endpoint { resource: Arc::clone(self), namespace: None }.document();
        let serve = get(async move || Json(whole));
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
                router = router.merge(self.elsewhere(name, issuer));
            }
        }
        router
    }

    /// Sends whoever looks for the authorization server's metadata here to where it is.
    fn elsewhere(&self, name: &str, issuer: &str) -> Router {
        let there = metadata_of(issuer, name);
        let redirect =
            get(async move || -> Response { Redirect::temporary(&there).into_response() });
        let here = format!("/.well-known/{name}");
        let mut router = serve_at(Router::new(), &here, &redirect);
        if !self.path().is_empty() {
            router = serve_at(router, &format!("{here}{}", self.path()), &redirect);
        }
        serve_at(router, &format!("{here}{}/{{namespace}}", self.path()), &redirect)
    }
}

/// Serves a path with and without a slash at its end: clients make the URL out of one that a person typed.
fn serve_at(router: Router, path: &str, method: &MethodRouter) -> Router {
    router.route(path, method.clone()).route(&format!("{path}/"), method.clone())
}

/// Where an issuer's metadata is: RFC 8414 puts the well-known part before the issuer's path, OpenID Connect after it.
fn metadata_of(issuer: &str, name: &str) -> String {
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
    fn an_issuer_with_a_path_has_its_metadata_where_each_standard_says() {
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
            assert_eq!(metadata_of(issuer, name), expected);
        }
    }
}
