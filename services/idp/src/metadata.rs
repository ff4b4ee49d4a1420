//! Discovery: the server's metadata (RFC 8414) and its public keys.

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, extract::State};
use jsonwebtoken::jwk::JwkSet;
use serde_json::{Value, json};
use url::Url;

use crate::{StartError, server::Idp};

pub(crate) const AUTHORIZE: &str = "/authorize";
pub(crate) const TOKEN: &str = "/token";
pub(crate) const REGISTER: &str = "/register";
pub(crate) const SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";
pub(crate) const JWKS: &str = "/.well-known/jwks.json";

/// The issuer identifier: an origin without a trailing slash. Clients compare it as text.
pub(crate) struct Issuer {
    text: String,
    host: String,
}

impl Issuer {
    /// The configured issuer, or the bound address as local clients see it.
    pub(crate) fn new(configured: Option<&Url>, bound: SocketAddr) -> Result<Self, StartError> {
        let Some(url) = configured else {
            let mut local = bound;
            if bound.ip().is_unspecified() {
                local.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            return Ok(Self { text: format!("http://{local}"), host: local.ip().to_string() });
        };
        let is_origin = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        match url.host_str() {
            Some(host) if is_origin => Ok(Self {
                text: url.as_str().trim_end_matches('/').to_owned(),
                host: host.to_owned(),
            }),
            _ => Err(StartError::Issuer { issuer: url.clone() }),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// Server metadata (RFC 8414 section 2), also for clients of OpenID Connect discovery.
pub(crate) async fn server_metadata(State(idp): State<Arc<Idp>>) -> Json<Value> {
    let endpoint = |path: &str| format!("{}{path}", idp.issuer.as_str());
    Json(json!({
        "issuer": idp.issuer.as_str(),
        "authorization_endpoint": endpoint(AUTHORIZE),
        "token_endpoint": endpoint(TOKEN),
        "registration_endpoint": endpoint(REGISTER),
        "jwks_uri": endpoint(JWKS),
        "scopes_supported": idp.scopes.as_slice(),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "token_endpoint_auth_methods_supported":
            ["none", "client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        // OpenID Connect discovery requires these two; this server issues no ID tokens.
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

pub(crate) async fn jwks(State(idp): State<Arc<Idp>>) -> Json<JwkSet> {
    Json(idp.key.public().clone())
}
