//! The HTTP client for Vault's endpoints, with a limit on the size of responses.

use std::io;

use async_trait::async_trait;
use http::{Request, Response};
use rustify::{client::Client, errors::ClientError};

/// The largest response, in bytes. The largest useful ones are lists of mounts, and secrets of a
/// megabyte.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) struct Http {
    pub(super) client: reqwest::Client,
    pub(super) base: String,
}

#[async_trait]
impl Client for Http {
    fn base(&self) -> &str {
        &self.base
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        let request = reqwest::Request::try_from(request)
            .map_err(|source| ClientError::ReqwestBuildError { source })?;
        let (url, method) = (request.url().to_string(), request.method().to_string());
        let sent = self.client.execute(request).await;
        let response =
            sent.map_err(|error| ClientError::RequestError { source: error.into(), url, method })?;
        let builder = Response::builder().status(response.status());
        let body = read(response).await?;
        builder.body(body).map_err(|error| ClientError::ResponseError { source: error.into() })
    }
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, ClientError> {
    let expected =
        response.content_length().and_then(|length| length.try_into().ok()).unwrap_or_default();
    // A body that is reallocated would leave copies of secrets in memory.
    let mut body = Vec::with_capacity(RESPONSE_BYTES_MAX.min(expected));
    let failed = |error: reqwest::Error| ClientError::ResponseError { source: error.into() };
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
            return Err(ClientError::GenericError {
                source: io::Error::other("the response is too large").into(),
            });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use axum::{Router, response::Redirect, routing::get};
    use rustify::enums::RequestMethod;

    use super::*;
    use crate::{
        error::{CredentialsError, Outage},
        vault::{Client as Vault, RawEndpoint, RequestAuth, VaultConfig},
    };

    async fn serve(routes: Router) -> Vault {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Vault::new(&VaultConfig::new(url)).unwrap()
    }

    async fn send(vault: &Vault, path: &str) -> Result<(), CredentialsError> {
        let call = RawEndpoint { method: RequestMethod::GET, path, body: None };
        let request_auth = RequestAuth { token: None, request_id: None };
        vault.send(request_auth, || Ok(call.clone())).await.map(drop)
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
