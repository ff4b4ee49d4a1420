//! The HTTP that Vault's endpoints are called by, with a limit to what is answered.

use std::io;

use async_trait::async_trait;
use http::{Request, Response};
use rustify::{client::Client, errors::ClientError};

/// The longest answer. The longest that are of use are lists of mounts, and secrets of a megabyte.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

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
        let answer =
            sent.map_err(|error| ClientError::RequestError { source: error.into(), url, method })?;
        let response = Response::builder().status(answer.status());
        let body = read(answer).await?;
        response.body(body).map_err(|error| ClientError::ResponseError { source: error.into() })
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Vec<u8>, ClientError> {
    let expected =
        answer.content_length().and_then(|length| length.try_into().ok()).unwrap_or_default();
    // A body that grows leaves copies behind.
    let mut body = Vec::with_capacity(ANSWER_BYTES_MAX.min(expected));
    let broken = |error: reqwest::Error| ClientError::ResponseError { source: error.into() };
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::GenericError {
                source: io::Error::other("the answer is too long").into(),
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
    use crate::credentials::{
        error::CredentialsError,
        vault::{Any, As, Client as Vault, VaultConfig},
    };

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let long = |spaces: usize| format!("{}{{}}", " ".repeat(spaces));
        let server = Router::new()
            .route("/v1/long", get(async move || long(ANSWER_BYTES_MAX - 2)))
            .route("/v1/longer", get(async move || long(ANSWER_BYTES_MAX - 1)));
        tokio::spawn(async move { axum::serve(listener, server).await });
        let vault = Vault::new(&VaultConfig::new(url)).unwrap();
        let ask = async |path: &str| {
            let call = Any { method: RequestMethod::GET, path, body: None };
            vault.send(As { token: None, request_id: None }, || Ok(call.clone())).await.map(drop)
        };
        ask("long").await.unwrap();
        let refused = ask("longer").await.unwrap_err();
        assert!(matches!(refused, CredentialsError::Malformed), "{refused:?}");
    }
}
