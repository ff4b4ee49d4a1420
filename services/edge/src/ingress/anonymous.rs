//! The limits of unauthenticated requests, by the client's address.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use drawbridge_runtime::RequestId;
use serde_json::Value;

use crate::{
    metadata::Endpoint,
    refusal::Refusal,
    traffic::limits::{RateLimiter, Subject, client_address},
};

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
        Err(error) => {
            let request_id =
                request.extensions().get().cloned().unwrap_or_else(RequestId::generate);
            Refusal::from(error).into_response(Value::Null, &request_id, &anonymous.endpoint)
        }
    }
}
