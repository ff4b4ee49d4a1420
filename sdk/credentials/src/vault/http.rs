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
    use axum::{Router, routing::get};
    use rustify::enums::RequestMethod;

    use super::*;
    use crate::{
        error::CredentialsError,
        vault::{Client as Vault, RawEndpoint, RequestAuth, VaultConfig},
    };

    #[tokio::test]
    async fn a_response_over_the_limit_is_rejected() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let long = |spaces: usize| format!("{}{{}}", " ".repeat(spaces));
        let server = Router::new()
            .route("/v1/long", get(async move || long(RESPONSE_BYTES_MAX - 2)))
            .route("/v1/longer", get(async move || long(RESPONSE_BYTES_MAX - 1)));
        tokio::spawn(async move { axum::serve(listener, server).await });
        let vault = Vault::new(&VaultConfig::new(url)).unwrap();
        let send = async |path: &str| {
            let call = RawEndpoint { method: RequestMethod::GET, path, body: None };
            vault
                .send(RequestAuth { token: None, request_id: None }, || Ok(call.clone()))
                .await
                .map(drop)
        };
        send("long").await.unwrap();
        let refused = send("longer").await.unwrap_err();
        assert!(matches!(refused, CredentialsError::Malformed), "{refused:?}");
    }
}
