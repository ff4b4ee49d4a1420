//! HTTP requests of checks, and the clocks of servers.

use std::time::{Duration, SystemTime};

use drawbridge_runtime::{bounded, error_chain};
use http::{HeaderMap, StatusCode, header::DATE};
use url::Url;

use super::check::Finding;

/// The largest document that a check reads, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// From this difference on, a clock is worth a look.
const SKEW_WARNING: Duration = Duration::from_secs(5);
/// Auth's tolerance by default: a token from such a clock can be refused.
const SKEW_MAX: Duration = Duration::from_secs(30);

/// A response, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Result<serde_json::Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("it is not JSON: {error}"))
    }
}

/// A client that follows no redirect, and needs no proxy to reach services.
pub(super) fn client() -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| error_chain(&error))
}

/// Sends a request, and reads the response.
pub(super) async fn send(request: reqwest::RequestBuilder) -> Result<Answer, String> {
    let failed = |error: reqwest::Error| error_chain(&error.without_url());
    let response = http::Response::from(request.send().await.map_err(failed)?);
    let (head, body) = response.into_parts();
    let body = bounded::read_body(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|error| error_chain(&error))?.to_vec();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// Gets a document.
pub(super) async fn get(url: &Url) -> Result<Answer, String> {
    send(client()?.get(url.clone())).await
}

/// Compares the clock of a server, by its `Date` header (RFC 9110 section 6.6.1), with this
/// machine's. Absent: the difference is too small to matter, or the header is missing.
pub(super) fn compare_clock(headers: &HeaderMap) -> Option<Finding> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    compare_time(SystemTime::from(date))
}

/// As [`compare_clock`], for a time that the server reports.
pub(super) fn compare_time(theirs: SystemTime) -> Option<Finding> {
    let ours = SystemTime::now();
    let (skew, direction) = match ours.duration_since(theirs) {
        Ok(skew) => (skew, "behind"),
        Err(error) => (error.duration(), "ahead of"),
    };
    if skew < SKEW_WARNING {
        return None;
    }
    let finding =
        format!("its clock is {} seconds {direction} this machine's clock", skew.as_secs());
    let to_do = "synchronize both clocks (NTP): tokens from a wrong clock are refused as expired \
                 or not yet valid";
    Some(if skew > SKEW_MAX {
        Finding::failed(finding, to_do)
    } else {
        Finding::warning(finding, to_do)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::check::Level, *};

    #[test]
    fn a_clock_that_differs_by_more_than_the_tolerance_fails_the_check() {
        let level = |seconds: u64, ahead: bool| {
            let skew = Duration::from_secs(seconds);
            let now = SystemTime::now();
            compare_time(if ahead { now + skew } else { now - skew }).map(|found| found.level)
        };
        assert_eq!(level(0, true), None);
        assert_eq!(level(3, false), None);
        assert_eq!(level(12, true), Some(Level::Warning));
        assert_eq!(level(12, false), Some(Level::Warning));
        assert_eq!(level(90, true), Some(Level::Failed));
        assert_eq!(level(90, false), Some(Level::Failed));
    }

    #[test]
    fn the_clock_of_a_server_follows_from_its_date_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(compare_clock(&headers), None);
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        let found = compare_clock(&headers).unwrap();
        assert!(found.finding.ends_with("seconds behind this machine's clock"), "{found:?}");
    }
}
