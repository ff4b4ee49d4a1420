//! Limits of whoever is not authenticated, by the client's address.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use drawbridge_sdk::RequestId;
use http::Extensions;
use serde_json::Value;

use super::{Counted, Limits};
use crate::{ingress::client_address::ClientAddress, metadata::Endpoint};

/// What anybody may read.
#[derive(Debug)]
pub(crate) struct Anybody {
    pub(crate) limits: Arc<Limits>,
    pub(crate) endpoint: Endpoint,
}

/// Lets a request to what anybody may read pass, or refuses it.
pub(crate) async fn pass_anybody(
    State(anybody): State<Arc<Anybody>>,
    request: Request,
    next: Next,
) -> Response {
    match anybody.limits.take(&Counted::Address(address(request.extensions()))).await {
        Ok(None) => next.run(request).await,
        Ok(Some(standing)) => {
            let mut response = next.run(request).await;
            standing.tell(response.headers_mut());
            response
        }
        Err(refusal) => {
            let request_id =
                request.extensions().get().cloned().unwrap_or_else(RequestId::generate);
            refusal.into_response(Value::Null, &request_id, &anybody.endpoint)
        }
    }
}

/// Where a request comes from. Those of which nobody can say share one address.
pub(crate) fn address(extensions: &Extensions) -> IpAddr {
    extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0)
}
