//! The metric of HTTP requests.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::metrics::HTTP_REQUEST_DURATION;

/// The method as a metric label or span attribute: a known one, or `_OTHER`, so that no caller can
/// invent one (OpenTelemetry's semantic conventions for HTTP).
#[must_use]
pub fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::DELETE => "DELETE",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::POST => "POST",
        Method::PUT => "PUT",
        _ => "_OTHER",
    }
}

/// Records a request that took `elapsed` up to the head of its response. `route` is the template
/// that matched, never the path itself; absent for a path that the service does not have.
pub fn record_request(method: &Method, route: Option<&str>, status: StatusCode, elapsed: Duration) {
    let route = route.unwrap_or("unknown").to_owned();
    let labels = [known_method(method).into(), route.into(), status.as_str().to_owned().into()];
    HTTP_REQUEST_DURATION.with(labels).record(elapsed);
}
