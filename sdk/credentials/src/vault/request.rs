//! What is sent to Vault's API, and what it answers.

use reqwest::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

/// A request, without what all requests have. It may contain secrets.
pub(crate) struct VaultRequest {
    pub(crate) method: Method,
    /// Below `/v1`, without a leading slash.
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
}

impl VaultRequest {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None }
    }

    pub(crate) fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::POST, path: path.into(), body: Some(body) }
    }
}

/// The token that a request is authenticated with, and its id.
#[derive(Clone, Copy)]
pub(crate) struct RequestAuth<'a> {
    pub(crate) token: Option<&'a SecretString>,
    /// The request that caused the call, for the audit device.
    pub(crate) request_id: Option<&'a str>,
}

/// A response with its data and its lease.
#[derive(Debug, Deserialize)]
pub(crate) struct VaultResponse<T> {
    pub(crate) data: Option<T>,
    pub(crate) auth: Option<AuthInfo>,
    pub(crate) lease_id: String,
    /// In seconds.
    pub(crate) lease_duration: u64,
    pub(crate) renewable: bool,
}

/// A token that a login has created.
#[derive(Debug, Deserialize)]
pub(crate) struct AuthInfo {
    pub(crate) client_token: SecretString,
    /// In seconds.
    pub(crate) lease_duration: u64,
    pub(crate) renewable: bool,
}

/// The body of a refusal.
#[derive(Debug, Deserialize)]
pub(super) struct VaultErrors {
    pub(super) errors: Vec<String>,
}
