//! A client of Vault's HTTP API: deadlines, retries, a circuit breaker, and errors without secrets.

use std::path::PathBuf;

use backon::Retryable as _;
use drawbridge_runtime::{backoff, bounded, tls};
use reqwest::{Certificate, Identity, redirect};
use rustify::{Endpoint, endpoint, errors::ClientError};
use secrecy::{SecretString, zeroize::Zeroizing};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use vaultrs::api::{EndpointError, EndpointResult};

use super::{VaultConfig, endpoint::Headers, http::Http};
use crate::{
    circuit::SourceCircuit,
    error::{CredentialsError, Outage, SetupError},
    timeouts::{CALL_TIMEOUT, CONNECT_TIMEOUT, TRY_TIMEOUT},
};

/// How much of Vault's error message is retained.
const REASON_CHARS_MAX: usize = 200;

/// A client of Vault's API.
pub(crate) struct Client {
    http: Http,
    namespace: Option<String>,
    circuit: SourceCircuit,
}

/// The token that a request is authenticated with, and its id.
#[derive(Clone, Copy)]
pub(crate) struct RequestAuth<'a> {
    pub(crate) token: Option<&'a SecretString>,
    /// The request that caused the call, for the audit device.
    pub(crate) request_id: Option<&'a str>,
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
            http: Http { client: http.build()?, base: config.vault_url.to_string() },
            namespace: config.vault_namespace.clone(),
            circuit: SourceCircuit::new("Vault"),
        })
    }

    /// Calls an endpoint and returns its data with the lease.
    pub(crate) async fn call<E: Endpoint>(
        &self,
        request_auth: RequestAuth<'_>,
        endpoint: impl Fn() -> Result<E, CredentialsError>,
    ) -> Result<EndpointResult<E::Response>, CredentialsError>
    where
        E::Response: DeserializeOwned + Send + Sync,
    {
        let response = self.send(request_auth, endpoint).await?;
        let wrapped = response.wrap().map_err(|_| CredentialsError::Malformed);
        drop(Zeroizing::new(response.response.into_body()));
        wrapped
    }

    /// Calls an endpoint whose response may be empty.
    pub(crate) async fn send<E: Endpoint>(
        &self,
        request_auth: RequestAuth<'_>,
        endpoint: impl Fn() -> Result<E, CredentialsError>,
    ) -> Result<endpoint::EndpointResult<E::Response>, CredentialsError> {
        let calling = (|| self.attempt(request_auth, &endpoint)).retry(backoff::CALL).when(
            |error: &CredentialsError| {
                error.is_retryable()
                    && !matches!(error, CredentialsError::Unavailable(Outage::CircuitOpen))
            },
        );
        timeout(CALL_TIMEOUT, calling)
            .await
            .unwrap_or(Err(CredentialsError::Unavailable(Outage::Timeout)))
    }

    async fn attempt<E: Endpoint>(
        &self,
        request_auth: RequestAuth<'_>,
        endpoint: &impl Fn() -> Result<E, CredentialsError>,
    ) -> Result<endpoint::EndpointResult<E::Response>, CredentialsError> {
        let endpoint = endpoint()?;
        let namespace = self.namespace.as_deref();
        let headers =
            Headers { token: request_auth.token, namespace, request_id: request_auth.request_id };
        let calling = async {
            endpoint
                .with_middleware(&headers)
                .exec(&self.http)
                .await
                .map_err(|error| classify_error(&error))
        };
        self.circuit.call(calling).await
    }
}

/// Classifies an error. Only Vault's own message is retained.
fn classify_error(error: &ClientError) -> CredentialsError {
    match error {
        ClientError::ServerResponseError { code, content } => match code {
            404 => CredentialsError::NoSuchSecret,
            429 => CredentialsError::Unavailable(Outage::Busy),
            // While a standby becomes active it redirects what it cannot forward. Redirects are not
            // followed: the token is for this server only.
            300..400 | 472 | 473 | 501 | 503 => CredentialsError::Unavailable(Outage::NotReady),
            500.. => {
                tracing::warn!(
                    status = code,
                    reason = reason(content.as_deref()),
                    "Vault had an internal failure"
                );
                CredentialsError::Unavailable(Outage::Failed)
            }
            _ => CredentialsError::Refused { status: *code, reason: reason(content.as_deref()) },
        },
        ClientError::RequestError { source, .. } => {
            let timed_out =
                source.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
            let outage = if timed_out { Outage::Timeout } else { Outage::Unreachable };
            tracing::debug!(cause = source.source(), "Vault did not answer");
            CredentialsError::Unavailable(outage)
        }
        ClientError::ResponseError { .. } => CredentialsError::Unavailable(Outage::Unreachable),
        _ => CredentialsError::Malformed,
    }
}

fn reason(content: Option<&str>) -> String {
    let errors = content.and_then(|text| serde_json::from_str::<EndpointError>(text).ok());
    let text = errors.map(|body| body.errors.join("; ")).unwrap_or_default();
    let text = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    text.take(REASON_CHARS_MAX).collect()
}
