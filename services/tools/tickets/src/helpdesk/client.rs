//! HTTP exchanges with helpdesks: bounded in time and size, retried only if idempotent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::Retryable as _;
use drawbridge_sdk::{CallContext, REQUEST_ID, backoff, trace};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use moka::sync::Cache;
use reqwest::{Response, redirect::Policy};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{Instrument as _, Span, field::Empty};
use url::Url;

use super::BaseUrl;
use crate::{
    error::TicketError,
    metrics::{REQUEST_DURATION, REQUESTS},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout of one exchange: short enough to retry a read within most deadlines.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest response, in bytes.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Concurrent requests to one helpdesk. Further ones queue, so that a slow helpdesk does not delay
/// others.
const CONCURRENT_REQUESTS_MAX: usize = 16;
/// The maximum number of helpdesks with a limiter.
const HELPDESKS_MAX: u64 = 10_000;
/// The cap on a helpdesk's `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// An HTTP client for helpdesks. Calls share its connections.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    limiters: Cache<BaseUrl, Arc<Semaphore>>,
}

/// A helpdesk's URL and token.
#[derive(Debug)]
pub(super) struct Access {
    url: BaseUrl,
    token: SecretString,
    header: HeaderValue,
}

impl Access {
    pub(super) fn new(url: BaseUrl, token: &SecretString) -> Result<Self, TicketError> {
        let header = format!("Token token={}", token.expose_secret()).parse();
        let mut header: HeaderValue = header.map_err(|_| TicketError::TokenRefused)?;
        header.set_sensitive(true);
        Ok(Self { url, token: token.clone(), header })
    }

    pub(super) fn is_equal(&self, other: &Self) -> bool {
        self.url == other.url && self.token.expose_secret() == other.token.expose_secret()
    }
}

/// A request to a helpdesk.
#[derive(Debug)]
pub(super) struct ApiRequest<'a> {
    /// The label in metrics and spans.
    operation: &'static str,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    /// The body of a POST. Absent: a GET.
    read_body: Option<&'a Value>,
}

impl<'a> ApiRequest<'a> {
    pub(super) fn get(
        operation: &'static str,
        path: &'a [&'a str],
        query: &'a [(&'a str, &'a str)],
    ) -> Self {
        Self { operation, path, query, read_body: None }
    }

    pub(super) fn post(operation: &'static str, path: &'a [&'a str], read_body: &'a Value) -> Self {
        Self { operation, path, query: &[], read_body: Some(read_body) }
    }
}

impl Client {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // The token must not follow a redirect.
            .redirect(Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, limiters: Cache::new(HELPDESKS_MAX) })
    }

    /// Sends a request, and retries reads until a response arrives, the deadline passes, or the
    /// error is final.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        access: &Access,
        context: &CallContext,
        api_request: &ApiRequest<'_>,
    ) -> Result<T, TicketError> {
        let _permit = self.permit(access, context).await?;
        if api_request.read_body.is_some() {
            return self.exchange(access, context, api_request).await.map_err(
                |error| match error {
                    // The helpdesk may have received and executed it.
                    TicketError::Unavailable { .. }
                    | TicketError::Malformed
                    | TicketError::TooLarge { .. }
                    | TicketError::DeadlinePassed => TicketError::Unconfirmed,
                    error => error,
                },
            );
        }
        let send = (|| self.exchange(access, context, api_request))
            .retry(backoff::CALL)
            .when(TicketError::is_retryable)
            .adjust(|error: &TicketError, delay| {
                let delay =
                    delay.map(|delay| error.retry_after().map_or(delay, |after| after.max(delay)));
                // No retry beyond the deadline.
                delay.filter(|delay| *delay < context.remaining())
            });
        send.await
    }

    async fn permit(
        &self,
        access: &Access,
        context: &CallContext,
    ) -> Result<OwnedSemaphorePermit, TicketError> {
        let limiters = self
            .limiters
            .get_with_by_ref(&access.url, || Arc::new(Semaphore::new(CONCURRENT_REQUESTS_MAX)));
        let permit = timeout(context.remaining(), limiters.acquire_owned()).await;
        // A timeout alone lets an immediate permit through after the deadline.
        let permit = permit
            .ok()
            .filter(|_| !context.remaining().is_zero())
            .ok_or(TicketError::DeadlinePassed)?;
        permit.map_err(|error| TicketError::Failed(error.into()))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        access: &Access,
        context: &CallContext,
        api_request: &ApiRequest<'_>,
    ) -> Result<T, TicketError> {
        let span = exchange_span(access, api_request);
        instrumented(api_request.operation, span, async {
            let remaining = context.remaining();
            let response_body = timeout(
                remaining.min(EXCHANGE_TIMEOUT),
                Box::pin(self.response_body(access, context, api_request)),
            );
            let read_body =
                response_body.await.unwrap_or(Err(TicketError::Unavailable { retry_after: None }));
            if read_body.is_err() && context.remaining().is_zero() {
                return Err(TicketError::DeadlinePassed);
            }
            serde_json::from_slice(&read_body?).map_err(|error| {
                // Log the position and the kind of the error, but no content.
                let (line, column, kind) = (error.line(), error.column(), error.classify());
                tracing::warn!(
                    operation = api_request.operation,
                    line,
                    column,
                    ?kind,
                    "cannot parse a helpdesk's response"
                );
                TicketError::Malformed
            })
        })
        .await
    }

    async fn response_body(
        &self,
        access: &Access,
        context: &CallContext,
        api_request: &ApiRequest<'_>,
    ) -> Result<Vec<u8>, TicketError> {
        let url: Url = access.url.endpoint(api_request.path);
        let request = match api_request.read_body {
            Some(read_body) => self.http.post(url).json(read_body),
            None => self.http.get(url).query(api_request.query),
        };
        let request = request
            .header(header::AUTHORIZATION, access.header.clone())
            .header(header::ACCEPT, "application/json")
            .header(REQUEST_ID, context.request_id.header());
        let mut trace_context = HeaderMap::new();
        trace::inject(&mut trace_context);
        let sending = request.headers(trace_context).send();
        let response = sending.await.map_err(connection_error)?;
        Span::current().record("http.response.status_code", response.status().as_u16());
        check_head(response.status(), response.headers())?;
        read_body(response).await
    }
}

/// Maps a connection error.
fn connection_error(error: reqwest::Error) -> TicketError {
    let is_connect = error.is_connect();
    tracing::debug!(
        error = &error.without_url() as &dyn std::error::Error,
        "a helpdesk does not respond"
    );
    if is_connect {
        TicketError::Unreachable
    } else {
        TicketError::Unavailable { retry_after: None }
    }
}

/// Maps the head of a response. The body of an error is not read, since callers must not see it.
fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<(), TicketError> {
    match status {
        StatusCode::OK | StatusCode::CREATED => {}
        StatusCode::UNAUTHORIZED => return Err(TicketError::TokenRefused),
        StatusCode::FORBIDDEN => return Err(TicketError::Refused),
        StatusCode::NOT_FOUND => return Err(TicketError::NotFound),
        StatusCode::TOO_MANY_REQUESTS => {
            return Err(TicketError::Busy { retry_after: retry_after(headers) });
        }
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            return Err(TicketError::Unavailable { retry_after: retry_after(headers) });
        }
        status if status.is_client_error() => return Err(TicketError::Rejected),
        _ => return Err(TicketError::Malformed),
    }
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // A proxy, login or maintenance page with a success status.
    if media_type.is_some_and(|media_type| media_type.starts_with("text/html")) {
        return Err(TicketError::Unavailable { retry_after: None });
    }
    Ok(())
}

/// `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
        }
    };
    Some(after.min(RETRY_AFTER_MAX))
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, TicketError> {
    let mut read_body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(connection_error)? {
        if read_body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(TicketError::TooLarge { bytes_max: BODY_BYTES_MAX });
        }
        read_body.extend_from_slice(&chunk);
    }
    Ok(read_body)
}

/// The span of one exchange, by OpenTelemetry's conventions for HTTP: without the path, which names
/// what the caller looks at.
fn exchange_span(access: &Access, api_request: &ApiRequest<'_>) -> Span {
    let method = if api_request.read_body.is_some() { "POST" } else { "GET" };
    let url = access.url.endpoint(&[]);
    tracing::info_span!(
        "helpdesk",
        otel.name = format!("{method} {}", api_request.operation),
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        server.address = url.host_str(),
        server.port = url.port_or_known_default(),
        error.type = Empty,
    )
}

/// Runs one exchange in its span, and records its metrics.
async fn instrumented<T>(
    operation: &'static str,
    span: Span,
    work: impl Future<Output = Result<T, TicketError>>,
) -> Result<T, TicketError> {
    let started = Instant::now();
    let result = work.instrument(span.clone()).await;
    let outcome = result.as_ref().err().map_or("ok", TicketError::metric_label);
    if let Err(error) = &result {
        span.record("otel.status_code", "ERROR").record("error.type", outcome);
        span.in_scope(|| tracing::warn!(operation, %error, "helpdesk"));
    }
    REQUESTS.with([operation.into(), outcome.into()]).increment(1);
    REQUEST_DURATION.with([operation.into()]).record(started.elapsed());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_redacts_the_token() {
        let url = "https://desk.example".parse().unwrap();
        let access = Access::new(url, &"hunter2".into()).unwrap();
        let shown = format!("{access:?}");
        assert!(shown.contains("desk.example") && !shown.contains("hunter2"), "{shown}");
        let broken = Access::new("https://desk.example".parse().unwrap(), &"a\r\nb: c".into());
        assert!(matches!(broken, Err(TicketError::TokenRefused)), "{broken:?}");
    }
}
