//! A client of Vault's HTTP API: deadlines, retries, a circuit breaker, and errors without secrets.

use std::{error::Error as _, path::PathBuf};

use backon::Retryable as _;
use drawbridge_runtime::{backoff, bounded, tls};
use http::{HeaderMap, HeaderValue, header::InvalidHeaderValue};
use reqwest::{Certificate, Identity, redirect};
use secrecy::{ExposeSecret, zeroize::Zeroizing};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use url::Url;

use super::{
    VaultConfig,
    request::{RequestAuth, VaultErrors, VaultRequest, VaultResponse},
};
use crate::{
    circuit::SourceCircuit,
    error::{CredentialsError, Outage, SetupError},
    timeouts::{CALL_TIMEOUT, CONNECT_TIMEOUT, TRY_TIMEOUT},
};

/// The largest response, in bytes. The largest useful ones are lists of mounts, and secrets of a
/// megabyte.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much of Vault's error message is retained.
const REASON_CHARS_MAX: usize = 200;

/// A client of Vault's API.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    namespace: Option<String>,
    circuit: SourceCircuit,
}

impl Client {
    pub(crate) fn new(config: &VaultConfig) -> Result<Self, SetupError> {
        let read = |path: &PathBuf| {
            bounded::read_file(path, tls::PEM_BYTES_MAX)
                .map_err(|source| SetupError::File { path: path.clone(), source })
        };
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TRY_TIMEOUT)
            // The Vault token is for this server only.
            .redirect(redirect::Policy::none());
        if let Some(path) = &config.vault_ca_file {
            http = http.tls_certs_only(Certificate::from_pem_bundle(&read(path)?)?);
        }
        if let Some(path) = &config.vault_client_certificate_file {
            http = http.identity(Identity::from_pem(&read(path)?)?);
        }
        Ok(Self {
            http: http.build()?,
            base: config.vault_url.clone(),
            namespace: config.vault_namespace.clone(),
            circuit: SourceCircuit::new("Vault"),
        })
    }

    /// Sends a request and returns its data with the lease.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        auth: RequestAuth<'_>,
        request: &VaultRequest,
    ) -> Result<VaultResponse<T>, CredentialsError> {
        let body = self.send(auth, request).await?;
        serde_json::from_slice(&body).map_err(|_| CredentialsError::Malformed)
    }

    /// Sends a request and returns the body, which may be empty.
    pub(crate) async fn send(
        &self,
        auth: RequestAuth<'_>,
        request: &VaultRequest,
    ) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
        let calling = (|| self.circuit.call(self.attempt(auth, request)))
            .retry(backoff::CALL)
            .when(|error: &CredentialsError| {
                error.is_retryable()
                    && !matches!(error, CredentialsError::Unavailable(Outage::CircuitOpen))
            });
        timeout(CALL_TIMEOUT, calling)
            .await
            .unwrap_or(Err(CredentialsError::Unavailable(Outage::Timeout)))
    }

    /// Asks whether Vault can be used, without a token and outside of the circuit. The path is in no
    /// namespace.
    pub(crate) async fn check_health(&self) -> Result<(), String> {
        let mut url = self.base.clone();
        let unreachable = || "cannot be reached".to_owned();
        let mut path = url.path_segments_mut().map_err(|()| unreachable())?;
        path.pop_if_empty().extend(["v1", "sys", "health"]);
        drop(path);
        // A standby forwards requests.
        url.set_query(Some("standbyok=true&perfstandbyok=true"));
        let response = self.http.get(url).send().await.map_err(|_| unreachable())?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            501 => Err("is not initialized".to_owned()),
            503 => Err("is sealed".to_owned()),
            status => Err(format!("answers with status {status}")),
        }
    }

    async fn attempt(
        &self,
        auth: RequestAuth<'_>,
        request: &VaultRequest,
    ) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| CredentialsError::Malformed)?
            .pop_if_empty()
            .push("v1")
            .extend(request.path.split('/'));
        let mut sending = self
            .http
            .request(request.method.clone(), url)
            .headers(self.headers(auth).map_err(|_| CredentialsError::Malformed)?);
        if let Some(body) = &request.body {
            sending = sending.json(body);
        }
        let response = sending.send().await.map_err(|error| {
            let outage = if error.is_timeout() { Outage::Timeout } else { Outage::Unreachable };
            tracing::debug!(cause = error.source(), "Vault did not answer");
            CredentialsError::Unavailable(outage)
        })?;
        let status = response.status();
        let body = read_body(response).await?;
        if status.is_success() { Ok(body) } else { Err(classify_status(status.as_u16(), &body)) }
    }

    fn headers(&self, auth: RequestAuth<'_>) -> Result<HeaderMap, InvalidHeaderValue> {
        let token = auth.token.map(ExposeSecret::expose_secret);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-vault-request", Some("true")),
            ("x-vault-token", token),
            ("x-vault-namespace", self.namespace.as_deref()),
            ("x-request-id", auth.request_id),
        ] {
            let Some(value) = value else { continue };
            let mut value = HeaderValue::from_str(value)?;
            // No log shows it.
            value.set_sensitive(name == "x-vault-token");
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

/// Reads a body up to the limit.
async fn read_body(
    mut response: reqwest::Response,
) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    let expected =
        response.content_length().and_then(|length| length.try_into().ok()).unwrap_or_default();
    // A body that is reallocated would leave copies of secrets in memory.
    let mut body = Zeroizing::new(Vec::with_capacity(RESPONSE_BYTES_MAX.min(expected)));
    let broken = |_| CredentialsError::Unavailable(Outage::Unreachable);
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
            return Err(CredentialsError::Malformed);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error of a status. Only Vault's own message is retained.
fn classify_status(status: u16, body: &[u8]) -> CredentialsError {
    match status {
        404 => CredentialsError::NoSuchSecret,
        429 => CredentialsError::Unavailable(Outage::Busy),
        // While a standby becomes active it redirects what it cannot forward. Redirects are not
        // followed: the token is for this server only.
        300..400 | 472 | 473 | 501 | 503 => CredentialsError::Unavailable(Outage::NotReady),
        500.. => {
            tracing::warn!(status, reason = reason(body), "Vault had an internal failure");
            CredentialsError::Unavailable(Outage::Failed)
        }
        _ => CredentialsError::Refused { status, reason: reason(body) },
    }
}

fn reason(body: &[u8]) -> String {
    let text = serde_json::from_slice::<VaultErrors>(body)
        .map(|body| body.errors.join("; "))
        .unwrap_or_default();
    let text = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    text.take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use axum::{Router, response::Redirect, routing::get};

    use super::*;

    async fn serve(routes: Router) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Client::new(&VaultConfig::new(url)).unwrap()
    }

    async fn send(vault: &Client, path: &str) -> Result<(), CredentialsError> {
        let auth = RequestAuth { token: None, request_id: None };
        vault.send(auth, &VaultRequest::get(path)).await.map(drop)
    }

    #[tokio::test]
    async fn a_response_over_the_limit_is_rejected() {
        let long = |spaces: usize| format!("{}{{}}", " ".repeat(spaces));
        let routes = Router::new()
            .route("/v1/long", get(async move || long(RESPONSE_BYTES_MAX - 2)))
            .route("/v1/longer", get(async move || long(RESPONSE_BYTES_MAX - 1)));
        let vault = serve(routes).await;
        send(&vault, "long").await.unwrap();
        let refused = send(&vault, "longer").await.unwrap_err();
        assert!(matches!(refused, CredentialsError::Malformed), "{refused:?}");
    }

    /// A Vault that becomes active redirects for a moment; callers were denied for it.
    #[tokio::test]
    async fn a_redirect_is_an_outage_and_is_not_followed() {
        let routes = Router::new()
            .route("/v1/standby", get(async || Redirect::temporary("/v1/active")))
            .route("/v1/active", get(async || "{}"));
        let redirected = send(&serve(routes).await, "standby").await.unwrap_err();
        let outage = CredentialsError::Unavailable(Outage::NotReady);
        assert!(redirected.is_retryable() && redirected.to_string() == outage.to_string());
    }
}
