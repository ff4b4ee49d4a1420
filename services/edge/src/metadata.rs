//! OAuth protected-resource metadata (RFC 9728), served to anybody.

use axum::{
    Json, Router,
    response::{IntoResponse as _, Redirect},
    routing::get,
};
use serde_json::{Value, json};
use url::Url;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The edge as an OAuth protected resource. All its URLs come from the configured public URL, never from a
/// request.
#[derive(Clone, Debug)]
pub(crate) struct ProtectedResource {
    document: Value,
    metadata_url: String,
    path: String,
    scopes: Vec<String>,
    authorization_server: String,
}

impl ProtectedResource {
    pub(crate) fn new(public_url: &Url, authorization_server: &str, scopes: &[String]) -> Self {
        // One canonical form: with its path, without a trailing slash.
        let resource = public_url.as_str().trim_end_matches('/');
        let path = public_url.path().trim_end_matches('/').to_owned();
        let mut metadata_url = public_url.clone();
        metadata_url.set_path(&format!("{WELL_KNOWN}{path}"));
        let document = json!({
            "resource": resource,
            "resource_name": "Drawbridge",
            "authorization_servers": [authorization_server],
            "bearer_methods_supported": ["header"],
            "scopes_supported": scopes,
        });
        Self {
            document,
            metadata_url: metadata_url.to_string(),
            path,
            scopes: scopes.to_vec(),
            authorization_server: authorization_server.to_owned(),
        }
    }

    pub(crate) fn metadata_url(&self) -> &str {
        &self.metadata_url
    }

    pub(crate) fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// The metadata at the root and at the path-suffixed URL, and the way to the authorization server for
    /// clients that look for it here.
    pub(crate) fn routes(&self) -> Router {
        let document = self.document.clone();
        let serve = get(async move || Json(document));
        let mut router = Router::new().route(WELL_KNOWN, serve.clone());
        if !self.path.is_empty() {
            router = router.route(&format!("{WELL_KNOWN}{}", self.path), serve);
        }
        for name in ["oauth-authorization-server", "openid-configuration"] {
            let elsewhere = format!("{}/.well-known/{name}", self.authorization_server.trim_end_matches('/'));
            let redirect = get(async move || Redirect::temporary(&elsewhere).into_response());
            router = router.route(&format!("/.well-known/{name}"), redirect.clone());
            if !self.path.is_empty() {
                router = router.route(&format!("/.well-known/{name}{}", self.path), redirect);
            }
        }
        router
    }
}
