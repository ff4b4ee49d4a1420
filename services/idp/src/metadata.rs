//! Discovery: the server's metadata (RFC 8414) and its public keys.

use std::sync::Arc;

use axum::{Json, extract::State};
use jsonwebtoken::jwk::JwkSet;
use serde_json::{Value, json};

use crate::server::Idp;

pub(crate) const AUTHORIZE: &str = "/authorize";
pub(crate) const TOKEN: &str = "/token";
pub(crate) const REGISTER: &str = "/register";
pub(crate) const SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";
pub(crate) const JWKS: &str = "/.well-known/jwks.json";

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
