//! One exchange with a helpdesk: bounded in time and size, repeated only where a second time does no harm.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable as _};
use drawbridge_sdk::{CallContext, REQUEST_ID};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use metrics::{counter, histogram};
use moka::sync::Cache;
use reqwest::{Response, redirect::Policy};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{Instrument as _, field::Empty};
use url::Url;

use super::BaseUrl;
use crate::error::TicketError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One exchange takes no longer, so that a read can be repeated within most deadlines.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Before a read is repeated, where the helpdesk does not say how long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRIES_MAX: usize = 2;
/// Requests at once to one helpdesk. Further ones wait, so that one that is slow holds up nobody else's.
const AT_ONCE_MAX: usize = 16;
/// Helpdesks whose requests are counted.
const HELPDESKS_MAX: u64 = 10_000;
/// A helpdesk that wants to be left alone for longer is taken to mean this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Asks helpdesks. Connections are kept and shared.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    turns: Cache<BaseUrl, Arc<Semaphore>>,
}

/// A helpdesk, and what opens it.
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

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.url == other.url && self.token.expose_secret() == other.token.expose_secret()
    }
}

/// What is asked.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// One word for metrics and spans.
    operation: &'static str,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    /// Something is made by this. Absent: it is read.
    body: Option<&'a Value>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(
        operation: &'static str,
        path: &'a [&'a str],
        query: &'a [(&'a str, &'a str)],
    ) -> Self {
        Self { operation, path, query, body: None }
    }

    pub(super) fn post(operation: &'static str, path: &'a [&'a str], body: &'a Value) -> Self {
        Self { operation, path, query: &[], body: Some(body) }
    }
}

impl Client {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // The token is for this helpdesk alone.
            .redirect(Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, turns: Cache::new(HELPDESKS_MAX) })
    }

    /// Asks until there is an answer, the deadline passes, or asking again makes no sense.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        access: &Access,
        context: &CallContext,
        ask: &Ask<'_>,
    ) -> Result<T, TicketError> {
        let _turn = self.turn(access, context).await?;
        if ask.body.is_some() {
            return self.exchange(access, context, ask).await.map_err(|error| match error {
                // It was received, and perhaps carried out.
                TicketError::Unavailable { .. }
                | TicketError::Malformed
                | TicketError::TooLarge { .. }
                | TicketError::DeadlinePassed => TicketError::Unconfirmed,
                error => error,
            });
        }
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE_MIN)
            .with_max_times(RETRIES_MAX)
            .with_jitter();
        let asking = (|| self.exchange(access, context, ask))
            .retry(pauses)
            .when(TicketError::is_retryable)
            .adjust(|error: &TicketError, pause| {
                let pause =
                    pause.map(|pause| error.retry_after().map_or(pause, |after| after.max(pause)));
                // Nobody would wait for the answer.
                pause.filter(|pause| *pause < context.remaining())
            });
        asking.await
    }

    async fn turn(
        &self,
        access: &Access,
        context: &CallContext,
    ) -> Result<OwnedSemaphorePermit, TicketError> {
        let turns =
            self.turns.get_with_by_ref(&access.url, || Arc::new(Semaphore::new(AT_ONCE_MAX)));
        let turn = timeout(context.remaining(), turns.acquire_owned()).await;
        // The timeout alone lets through whoever need not wait.
        let turn = turn
            .ok()
            .filter(|_| !context.remaining().is_zero())
            .ok_or(TicketError::DeadlinePassed)?;
        turn.map_err(|error| TicketError::Failed(error.into()))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        access: &Access,
        context: &CallContext,
        ask: &Ask<'_>,
    ) -> Result<T, TicketError> {
        told(ask.operation, async {
            let remaining = context.remaining();
            let answer = timeout(
                remaining.min(EXCHANGE_TIMEOUT),
                Box::pin(self.answer(access, context, ask)),
            );
            let body = answer.await.unwrap_or(Err(TicketError::Unavailable { retry_after: None }));
            if body.is_err() && context.remaining().is_zero() {
                return Err(TicketError::DeadlinePassed);
            }
            serde_json::from_slice(&body?).map_err(|error| {
                // The place and the kind of what is wrong, and nothing of the text.
                let (line, column, kind) = (error.line(), error.column(), error.classify());
                tracing::warn!(
                    operation = ask.operation,
                    line,
                    column,
                    ?kind,
                    "a helpdesk's answer cannot be read"
                );
                TicketError::Malformed
            })
        })
        .await
    }

    async fn answer(
        &self,
        access: &Access,
        context: &CallContext,
        ask: &Ask<'_>,
    ) -> Result<Vec<u8>, TicketError> {
        let url: Url = access.url.endpoint(ask.path);
        let request = match ask.body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url).query(ask.query),
        };
        let request = request
            .header(header::AUTHORIZATION, access.header.clone())
            .header(header::ACCEPT, "application/json")
            .header(REQUEST_ID, context.request_id.header());
        let response = request.send().await.map_err(no_answer)?;
        judge(response.status(), response.headers())?;
        body(response).await
    }
}

/// What an error of the connection means.
fn no_answer(error: reqwest::Error) -> TicketError {
    let is_connect = error.is_connect();
    tracing::debug!(
        error = &error.without_url() as &dyn std::error::Error,
        "a helpdesk gives no answer"
    );
    if is_connect {
        TicketError::Unreachable
    } else {
        TicketError::Unavailable { retry_after: None }
    }
}

/// What the head of an answer means. The body of an error is not read: whatever it says is not for callers.
fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), TicketError> {
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
    // A page of a proxy, of a login or of maintenance, which says that all is well.
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

async fn body(mut response: Response) -> Result<Vec<u8>, TicketError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(TicketError::TooLarge { bytes_max: BODY_BYTES_MAX });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Does one exchange within a span, and counts and times it.
async fn told<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, TicketError>>,
) -> Result<T, TicketError> {
    let span = tracing::info_span!(
        "helpdesk",
        otel.name = format!("helpdesk {operation}"),
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
    );
    let began = Instant::now();
    let done = work.instrument(span.clone()).await;
    let outcome = done.as_ref().err().map_or("ok", TicketError::word);
    if let Err(error) = &done {
        span.record("otel.status_code", "ERROR").record("error.type", outcome);
        span.in_scope(|| tracing::warn!(operation, %error, "helpdesk"));
    }
    counter!("helpdesk_requests_total", "operation" => operation, "outcome" => outcome)
        .increment(1);
    histogram!("helpdesk_request_duration_seconds", "operation" => operation)
        .record(began.elapsed().as_secs_f64());
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_not_shown() {
        let url = "https://desk.example".parse().unwrap();
        let access = Access::new(url, &"hunter2".into()).unwrap();
        let shown = format!("{access:?}");
        assert!(shown.contains("desk.example") && !shown.contains("hunter2"), "{shown}");
        let broken = Access::new("https://desk.example".parse().unwrap(), &"a\r\nb: c".into());
        assert!(matches!(broken, Err(TicketError::TokenRefused)), "{broken:?}");
    }
}
