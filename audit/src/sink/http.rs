//! A receiver of JSON lines over HTTP.

use std::{path::PathBuf, time::Duration};

use axum::http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use drawbridge_runtime::{bounded, error_chain, tls::PEM_BYTES_MAX};
use reqwest::{Certificate, Client, RequestBuilder, redirect::Policy};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{
    backlog::Batch,
    delivery::{Delivered, SendError},
};
use crate::SinkConfig;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a batch may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a response that are read.
const RESPONSE_BYTES_MAX: usize = 64 << 10;
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// The longest pause that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Posts batches as JSON lines. Any status of success acknowledges a batch.
#[derive(Debug)]
pub(super) struct HttpReceiver {
    http: Client,
    url: Url,
    token_file: Option<PathBuf>,
}

/// Sends a request, which a status of success acknowledges.
async fn send(request: RequestBuilder) -> Result<(), SendError> {
    // The URL may have secrets.
    let failed = |error: reqwest::Error| SendError::new(error_chain(&error.without_url()));
    let response = request.send().await.map_err(failed)?;
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    // The connection can be used again when the body was read. What it says does not matter.
    let _ = bounded::read_body(reqwest::Body::from(response), RESPONSE_BYTES_MAX).await;
    if status.is_success() {
        return Ok(());
    }
    Err(SendError {
        is_too_large: status == StatusCode::PAYLOAD_TOO_LARGE,
        retry_after,
        ..SendError::new(format!("the response has the status {status}"))
    })
}

/// The pause that a receiver asks for, in seconds (RFC 9110 section 10.2.3). A date is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

impl HttpReceiver {
    pub(super) fn new(url: Url, config: &SinkConfig) -> Result<Self, String> {
        let invalid = |error: reqwest::Error| error_chain(&error);
        // The token and the records are for this server only.
        let mut http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(SEND_TIMEOUT)
            .redirect(Policy::none());
        if let Some(file) = &config.audit_http_ca_file {
            let pem = bounded::read_file(file, PEM_BYTES_MAX)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            http = http.tls_certs_only(Certificate::from_pem_bundle(&pem).map_err(invalid)?);
        }
        let token_file = config.audit_http_token_file.clone();
        Ok(Self { http: http.build().map_err(invalid)?, url, token_file })
    }

    pub(super) async fn send(&self, log: &str, batch: &Batch) -> Result<Delivered, SendError> {
        let mut body = Vec::with_capacity(batch.lines.iter().map(|line| line.len() + 1).sum());
        for line in &batch.lines {
            body.extend(line);
            body.push(b'\n');
        }
        let mut request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header("drawbridge-audit-log", log)
            .header("drawbridge-audit-first", batch.first)
            .header("drawbridge-audit-next", batch.next());
        if let Some(token) = self.authorization().await? {
            request = request.header(AUTHORIZATION, token);
        }
        send(request.body(body)).await?;
        Ok(Delivered::default())
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, SendError> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let failed = |problem: String| SendError::new(format!("{}: {problem}", file.display()));
        let token = bounded::read_file_async(file, TOKEN_BYTES_MAX).await;
        let token = token.map_err(|error| failed(error.to_string()))?;
        let token: SecretString = String::from_utf8_lossy(&token).trim().to_owned().into();
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| failed("not a token".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
