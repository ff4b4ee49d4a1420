//! The limits of unauthenticated requests, by the client's address.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use drawbridge_runtime::RequestId;
use http::Extensions;
use serde_json::Value;

use super::{RateLimiter, Subject};
use crate::metadata::Endpoint;

/// The address that a request comes from. It does not authenticate the caller; it only selects the
/// limits and the queue of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// The state of [`limit_anonymous`].
#[derive(Debug)]
pub(crate) struct AnonymousLimits {
    pub(crate) limits: Arc<RateLimiter>,
    pub(crate) endpoint: Endpoint,
}

/// Charges a request to a public route to the limits of its address.
pub(crate) async fn limit_anonymous(
    State(anonymous): State<Arc<AnonymousLimits>>,
    request: Request,
    next: Next,
) -> Response {
    let subject = Subject::Address(client_address(request.extensions()));
    match anonymous.limits.charge(&subject).await {
        Ok(None) => next.run(request).await,
        Ok(Some(status)) => {
            let mut response = next.run(request).await;
            status.write_headers(response.headers_mut());
            response
        }
        Err(refusal) => {
            let request_id =
                request.extensions().get().cloned().unwrap_or_else(RequestId::generate);
            refusal.into_response(Value::Null, &request_id, &anonymous.endpoint)
        }
    }
}

/// The address that a request comes from. Requests of unknown origin share the unspecified address.
pub(crate) fn client_address(extensions: &Extensions) -> IpAddr {
    extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0)
}
