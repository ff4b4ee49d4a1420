//! Sends a call over a connection, and maps what fails to a status.

use http::{Request, Response, Uri, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body};
use tracing::Span;

use super::{RESPONSE_HEADERS_BYTES_MAX, replicas::Connection, status_headers};

/// Sends a call over one connection.
pub(super) async fn send_to(
    mut connection: Connection,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    connection.record_address(&Span::current());
    *request.uri_mut() = absolute(request.uri(), connection.origin())?;
    let response = connection.sender.send_request(request).await.map_err(connection_error)?;
    Ok(received(response, connection))
}

/// The call counts as in flight until the last byte of its response is read.
pub(super) fn received(mut response: Response<Incoming>, connection: Connection) -> Response<Body> {
    status_headers::sanitize(response.headers_mut());
    response.map(|body| {
        let body = body.map_frame(move |mut frame| {
            let _in_flight = &connection;
            if let Some(trailers) = frame.trailers_mut() {
                status_headers::sanitize(trailers);
            }
            frame
        });
        Body::new(body.map_err(unreadable_or))
    })
}

pub(super) fn absolute(uri: &Uri, origin: &Uri) -> Result<Uri, Status> {
    let mut parts = origin.clone().into_parts();
    parts.path_and_query =
        Some(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).map_err(|_| Status::internal("the path of a call is invalid"))
}

/// Whether this side aborted the call or the connection because of what the service sent. A retry
/// would fail the same way.
fn is_unreadable(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let too_large =
                error.is_go_away() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
            return error.is_library() && (error.is_reset() || too_large);
        }
        source = cause.source();
    }
    false
}

fn unreadable() -> Status {
    Status::internal(format!(
        "the service's response is not HTTP/2, or has more than {RESPONSE_HEADERS_BYTES_MAX} bytes \
         of headers"
    ))
}

fn unreadable_or(error: hyper::Error) -> Box<dyn std::error::Error + Send + Sync> {
    if is_unreadable(&error) { unreadable().into() } else { error.into() }
}

/// The status of a call whose connection broke.
pub(super) fn connection_error(error: hyper::Error) -> Status {
    if is_unreadable(&error) {
        return unreadable();
    }
    let lost = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
    let status = Status::from_error(Box::new(error));
    if lost || status.code() == Code::Unknown {
        return Status::unavailable("the connection to the service broke");
    }
    status
}
